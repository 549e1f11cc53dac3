//go:build virtualtime

package handover

import (
	"crypto/sha256"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/websocket"
)

// crash ends the server as kill -9 does, without a word, and starts it anew.
func (w *world) crash() {
	w.wifi.SetFirewall(lab.DropAll)
	w.stopServer()
	w.wifi.SetFirewall(nil)
	w.serve()
}

// TestCrashIsNoticed has the server lose all state. From the first data that the
// client sends then, it is told in one round trip that its SA is not known, asks,
// is told in another that its IKE SA is lost, and makes a new one. On streams the
// data meets a reset first. What is counted ends when the new link is there.
func TestCrashIsNoticed(t *testing.T) {
	web := func(w *world) transports.Transport {
		return websocket.New(websocket.Options{TLS: true, Host: "lab", Path: wsPath, CertHash: sha256.Sum256(w.cert.Certificate[0])})
	}
	for _, c := range []struct {
		name   string
		only   func(w *world) transports.Transport
		choice ike.PostQuantum
		rounds float64
	}{
		// Told, told again, IKE_SA_INIT, IKE_INTERMEDIATE, IKE_AUTH.
		{"udp", func(*world) transports.Transport { return udp.New(udp.Options{}) }, ike.PreferPostQuantum, 5},
		{"udp, classical", func(*world) transports.Transport { return udp.New(udp.Options{}) }, ike.NeverPostQuantum, 4},
		// The reset, and SYN; the rest by the new stream.
		{"tcp", func(*world) transports.Transport { return tcp.New() }, ike.PreferPostQuantum, 7},
		// The reset, SYN, TLS; the registration rides in the upgrade.
		{"websocket", web, ike.PreferPostQuantum, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = 100 * time.Millisecond
				w := newWorld(t, r, func(w *world) {
					w.postQuantum = c.choice
					w.only = []transports.Transport{c.only(w)}
				})
				defer w.close()
				m := w.join("laptop", 10)
				<-m.client.Ready()
				echo := w.echo(7).String()
				near, err := m.client.Dial(t.Context(), "tcp", echo)
				if err != nil {
					t.Fatal(err)
				}
				defer near.Close()
				settle()
				w.crash()
				start := lab.NewClock(r)
				if _, err := near.Write([]byte("anybody there?")); err != nil {
					t.Fatal(err)
				}
				for start.Rounds() < 30 && !w.connected() {
					time.Sleep(r / 100)
				}
				// The server has IKE_AUTH half a round trip before the client its answer.
				got := start.Rounds() + 0.5
				t.Logf("%.2f round trips", got)
				if got < c.rounds-0.1 || got > c.rounds+0.1 {
					t.Errorf("a new link after %.2f round trips, want %v", got, c.rounds)
				}
				// The connection ended with the server; the program is told.
				if _, err := io.ReadFull(near, make([]byte, 1)); err == nil || err == io.EOF {
					t.Errorf("the old connection ends with %v", err)
				}
				again, err := m.client.Dial(t.Context(), "tcp", echo)
				if err != nil {
					t.Fatal(err)
				}
				defer again.Close()
				if _, err := again.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(again, make([]byte, 5)); err != nil {
					t.Errorf("a new connection: %v", err)
				}
			})
		})
	}
}

// connected reports whether the server has its one client.
func (w *world) connected() bool {
	s := w.server.Status()
	return len(s.Clients) == 1 && s.Clients[0].Connected
}
