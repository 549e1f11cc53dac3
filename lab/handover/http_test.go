//go:build virtualtime

package handover

import (
	"crypto/sha256"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/http"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/web"
)

// TestMoveWhereOnlyHTTPPasses moves into a network where http alone is left. The
// registration rides in the first request and its reply in the response: one round
// trip for TCP and one for these, and one more for TLS.
func TestMoveWhereOnlyHTTPPasses(t *testing.T) {
	for name, tt := range map[string]struct {
		tls    bool
		rounds float64
	}{
		"plain": {false, 2},
		"TLS":   {true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = 100 * time.Millisecond
				w := newWorld(t, r, func(w *world) {
					w.only = []transports.Transport{udp.New(udp.Options{}), http.New(http.Options{Options: web.Options{
						TLS: tt.tls, Host: "lab", Path: wsPath, CertHash: sha256.Sum256(w.cert.Certificate[0]),
					}})}
				})
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 10)
				settle()
				w.cell.SetFirewall(lab.OnlyTCP)
				moved := time.Now()
				m.host.Move("if0", w.cell)
				settle()
				s := m.client.Status()
				p := s.Path
				if p == nil || p.Encapsulation != "http" || p.Verdict != "napt" || p.Remote != serverAt {
					t.Fatalf("path: %+v", p)
				}
				last := s.Registrations[len(s.Registrations)-1]
				nearAt, farAt := d.since(moved, moved.Add(r/2))
				out, in := lab.Rounds(farAt.Sub(moved), r)-0.5, lab.Rounds(nearAt.Sub(moved), r)
				t.Logf("reply at %.2f R, client data again at %.2f R, server data arrives at %.2f R", last.DurationMs/100, out, in)
				// Messages are a tenth of a round trip apart.
				if out > tt.rounds+0.1 || in > tt.rounds+0.1 {
					t.Errorf("want %v and %v", tt.rounds, tt.rounds)
				}
				d.end()
			})
		})
	}
}
