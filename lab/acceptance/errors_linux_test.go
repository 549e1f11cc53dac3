//go:build netns

package acceptance

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/lab/netns"
)

// Each mistake ends in one line that says what to do, and in an exit code.
func TestErrors(t *testing.T) {
	// Only a loopback, but one where every port is free.
	h := netns.NewLab(t).Host("host")
	const endpoint = "127.0.0.1:443"
	serverDir, other := t.TempDir(), t.TempDir()
	initialise := func(dir string) {
		t.Helper()
		must(t, h, "server", "init", "--endpoint", endpoint, "--listen", endpoint, "--dir", dir)
	}
	invite := func(dir, name string) string {
		t.Helper()
		return strings.TrimSpace(must(t, h, "server", "invite", name, "--dir", dir))
	}
	join := func(link string) (dir string) {
		t.Helper()
		dir = t.TempDir()
		must(t, h, "client", "join", link, "--dir", dir, "--offline")
		return dir
	}
	initialise(serverDir)
	initialise(other)
	good := invite(serverDir, "good")
	removed := join(invite(serverDir, "removed"))
	must(t, h, "server", "remove", "removed", "--dir", serverDir)
	stranger := join(invite(other, "stranger")) // no client of this server, and with another server's key

	// The server has lost its identity and knows its clients still.
	wrongKey := join(invite(serverDir, "wrong-key"))
	for _, file := range []string{"server.key", "server.toml"} {
		if err := os.Remove(filepath.Join(serverDir, file)); err != nil {
			t.Fatal(err)
		}
	}
	// A running server, and a client that joined after the loss.
	initialise(serverDir)
	joined := join(invite(serverDir, "joined"))
	start(t, h, "server", "run", "--dir", serverDir)
	taken := start(t, h, "client", "run", "--dir", joined, "--listen", "127.0.0.1:1080")
	second := join(invite(serverDir, "second"))

	link, err := config.ParseLink(good, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	link.Expires = time.Now().Add(-time.Hour)
	garbled := []byte(good)
	garbled[len(garbled)/2] ^= 1

	run := func(dir string) []string {
		return []string{"client", "run", "--dir", dir, "--listen", "127.0.0.1:1081"}
	}
	for _, tt := range []struct {
		name string
		args []string
		says string // regular expression: what is wrong and what to do
	}{
		{"wrong key", run(wrongKey), `(?i)key.*(invit|link|join)`},
		{"unknown client", run(stranger), `(?i)(refuse|unknown).*(invit|ask|new)`},
		{"removed client", run(removed), `(?i)(refuse|unknown).*(invit|ask|new)`},
		{"expired link", []string{"client", "join", link.String(), "--dir", t.TempDir()}, `(?i)expired.*(ask|invite)`},
		{"garbled link", []string{"client", "join", string(garbled), "--dir", t.TempDir()}, `(?i)link.*damaged.*copy`},
		{"half a link", []string{"client", "join", good[:len(good)/2], "--dir", t.TempDir()}, `(?i)link.*damaged.*copy`},
		{"no link", []string{"client", "join", "https://example.org/", "--dir", t.TempDir()}, `(?i)not a godwit link.*invite`},
		{"server's port in use", []string{"server", "run", "--dir", other}, `(?i)in use.*443.*(stop|choose)`},
		{"client's port in use", []string{"client", "run", "--dir", second, "--listen", "127.0.0.1:1080"}, `(?i)in use.*1080.*(stop|choose)`},
		{"client runs already", []string{"client", "run", "--dir", joined, "--listen", "127.0.0.1:1081"}, `(?i)running already.*stop`},
		{"no server set up", []string{"server", "run", "--dir", t.TempDir()}, `godwit server init`},
		{"no server to invite to", []string{"server", "invite", "x", "--dir", t.TempDir()}, `godwit server init`},
		{"no client set up", run(t.TempDir()), `godwit client join`},
		{"no client to ask", []string{"status", "--dir", removed}, `godwit client run`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := command(t, within(t, time.Minute), h, tt.args...)
			if o.code == 0 {
				t.Error("exit code 0")
			}
			if o.stdout != "" {
				t.Errorf("stdout: %q", o.stdout)
			}
			var ours []string
			lines := strings.Split(strings.TrimSuffix(o.stderr, "\n"), "\n")
			for _, line := range lines {
				if strings.HasPrefix(line, "godwit: ") {
					ours = append(ours, line)
				}
			}
			if len(ours) != 1 || lines[len(lines)-1] != ours[0] {
				t.Fatalf("not one line at the end that begins with godwit: \n%s", o.stderr)
			}
			if !regexp.MustCompile(tt.says).MatchString(ours[0]) {
				t.Errorf("%q does not say %s", ours[0], tt.says)
			}
			if strings.Contains(o.stderr, good) {
				t.Error("the error shows the secret link")
			}
		})
	}

	// None of all that disturbed the pair that was running.
	select {
	case <-taken.Done():
		t.Error("the running client ended")
	default:
	}
}
