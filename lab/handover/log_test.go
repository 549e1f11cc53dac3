//go:build virtualtime

package handover

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// since gives the lines of one end, and forgets all.
func (l *logged) since(who string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, "who="+who) {
			lines = append(lines, line)
		}
	}
	l.b.Reset()
	return lines
}

// TestOneLineForAMove: at level info a move is one line at the client, which
// says from where to where, why, and how long data was missing.
func TestOneLineForAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		var log logged
		w := newWorld(t, r, func(w *world) { w.log = &log })
		defer w.close()
		m := w.join("laptop", 10)
		d := m.talk(r / 5)
		settle()
		for _, line := range log.since("laptop") {
			// By which encapsulation the first answer comes is chance; a better one
			// that answers after it may be told.
			if strings.Contains(line, "moved") && !strings.Contains(line, "found after connecting") {
				t.Errorf("at the first connection: %s", line)
			}
		}
		want := func(pattern string) {
			t.Helper()
			lines := log.since("laptop")
			if len(lines) != 1 || !regexp.MustCompile(pattern).MatchString(lines[0]) {
				t.Errorf("the client logs %q, which is not one line of %s", lines, pattern)
			}
		}
		m.host.Detach("if0")
		m.host.Attach("if0", w.cell)
		settle()
		want(`msg=moved who=laptop from="udp at 10\.1\.0\.\d+:\d+" to="udp at 10\.2\.0\.\d+:\d+" why="the network changed" gap_out="?\S+( ms)?"? gap_in="\d+ ms" verdict=napt took=50ms`)
		// UDP is blocked without a word.
		w.cell.SetFirewall(lab.DropUDP)
		settle()
		want(`from="udp at 10\.2\.0\.\d+:\d+" to="tcp at 10\.2\.0\.\d+:\d+" why="the old path fell silent" gap_out="\d+ ms" gap_in="\d+ ms" verdict=napt`)
		d.end()
	})
}
