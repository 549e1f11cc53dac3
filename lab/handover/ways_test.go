//go:build virtualtime

package handover

import (
	"crypto/sha256"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/websocket"
)

// The ports of UDP in these tests: the shared one, and another.
const sharedPort, otherPort = 443, 4500

// A waysWorld has a home with a NAT behind a provider, who filters: what it swallows on
// its way out has a mapping in the NAT.
type waysWorld struct {
	*world
	provider, home *lab.Network
}

func newWaysWorld(t *testing.T, r time.Duration) *waysWorld {
	other := transports.UDPOn(otherPort)
	w := &waysWorld{world: newWorld(t, r, func(w *world) {
		w.takes = []transports.Name{transports.UDP, other, transports.TCP, transports.WebSocket}
		w.only = []transports.Transport{
			udp.New(udp.Options{}), udp.New(udp.Options{Port: otherPort}), tcp.New(),
			websocket.New(websocket.Options{TLS: true, Host: "lab", Path: wsPath, CertHash: sha256.Sum256(w.cert.Certificate[0])}),
		}
	})}
	w.provider = w.in.AddNetwork("provider", lab.NetworkConfig{Prefixes: lab.Prefixes("203.0.113.64/26"), Link: lab.Link{Delay: r / 2}})
	w.home = w.in.AddNetwork("home", lab.NetworkConfig{
		Prefixes: lab.Prefixes("10.3.0.0/24"), Parent: w.provider, NAT: &lab.NAT{Outside: lab.Addrs("203.0.113.77")},
	})
	return w
}

// oneWayPorts passes nothing but UDP: to the port up, and from the port down.
func oneWayPorts(up, down uint16) lab.Firewall {
	return func(p lab.Packet) lab.Verdict {
		if p.Proto == lab.UDP && (p.Outbound && p.Dst.Port() == up || !p.Outbound && p.Src.Port() == down) {
			return lab.Pass
		}
		return lab.Drop
	}
}

// smallTCPDown passes UDP of one port down alone, and TCP but for what comes in large
// packets.
func smallTCPDown(p lab.Packet) lab.Verdict {
	if p.Proto == lab.UDP && (p.Outbound || p.Src.Port() == otherPort) {
		return lab.Drop
	}
	if p.Proto == lab.TCP && !p.Outbound {
		return lab.DropLarger(600)(p)
	}
	return lab.Pass
}

// TestTwoWays has no encapsulation pass both ways: UDP to one port passes up, from
// another one down, and TCP nothing. Data goes up by the one and comes by the other, soon.
func TestTwoWays(t *testing.T) {
	const r = 50 * time.Millisecond
	for _, tt := range []struct {
		name     string
		block    lab.Firewall
		up, down string
		moves    bool
		out, in  float64 // round trips of silence, at most
	}{
		{"where it moves to", oneWayPorts(sharedPort, otherPort), "udp", "udp-4500", true, 1.3, 7.5},
		{"where it moves to, the other way round", oneWayPorts(otherPort, sharedPort), "udp-4500", "udp", true, 7.5, 7.5},
		{"in place", oneWayPorts(sharedPort, otherPort), "udp", "udp-4500", false, 16, 16},
		{"in place, the other way round", oneWayPorts(otherPort, sharedPort), "udp-4500", "udp", false, 16, 16},
		{"a stream up", smallTCPDown, "tcp", "udp", true, 30, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWaysWorld(t, r)
				defer w.close()
				m := w.join("laptop", 10)
				if !tt.moves {
					m.host.Move("if0", w.home)
				}
				<-m.client.Ready()
				near, far := m.pair(7)
				up := newFlow(t, "up", near, far, pace{size: 700, every: r / 10})
				down := newFlow(t, "down", far, near, pace{size: 700, every: r / 10})
				settle()
				at := time.Now()
				w.provider.SetFirewall(tt.block)
				if tt.moves {
					m.host.Move("if0", w.home)
				}
				settle()
				now := time.Now()
				out, in := lab.Rounds(up.silence(at, now), r), lab.Rounds(down.silence(at, now), r)
				t.Logf("silence of client data %.2f R, of server data %.2f R", out, in)
				if out > tt.out || in > tt.in {
					t.Errorf("silence of client data %.2f R, of server data %.2f R, want %v and %v", out, in, tt.out, tt.in)
				}
				st := m.client.Status()
				if p := st.Path; p == nil || p.Encapsulation != tt.up || p.Down == nil || p.Down.Encapsulation != tt.down {
					t.Fatalf("path: %+v", p)
				}
				last := st.Registrations[len(st.Registrations)-1]
				if last.Selected != tt.up || last.Down != tt.down || !last.Done {
					t.Errorf("registration: %+v", last)
				}
				for _, c := range last.Copies {
					switch c.Encapsulation {
					case tt.up:
						if !c.ArrivedFull || c.Answered || c.Came {
							t.Errorf("way up: %+v", c)
						}
					case tt.down:
						if c.Arrived || c.ArrivedFull || !c.Heard || !c.Came || c.Answered {
							t.Errorf("way down: %+v", c)
						}
					}
				}
				up.end()
				down.end()
			})
		})
	}
}

// TestTwoWaysInBulk fills a link in both directions at once while nothing passes both
// ways: every byte arrives in order, at the link's rate, though packets are lost. When
// the network is good again one encapsulation has both directions, and nothing is lost.
func TestTwoWaysInBulk(t *testing.T) {
	const (
		r    = 40 * time.Millisecond
		rate = 2 << 20 // bytes a second
	)
	synctest.Test(t, func(t *testing.T) {
		w := newWaysWorld(t, r)
		defer w.close()
		w.provider.SetLink(lab.Link{Delay: r / 2, Rate: rate, Loss: 0.005})
		m := w.join("laptop", 10)
		m.host.Move("if0", w.home)
		<-m.client.Ready()
		near, far := m.pair(7)
		up, down := newFlow(t, "up", near, far, pace{}), newFlow(t, "down", far, near, pace{})
		settle()
		w.provider.SetFirewall(oneWayPorts(otherPort, sharedPort))
		settle()
		if p := m.client.Status().Path; p == nil || p.Down == nil {
			t.Fatalf("path: %+v", p)
		}
		from := time.Now()
		time.Sleep(5 * time.Second)
		for _, f := range []*flow{up, down} {
			part := float64(f.between(from, time.Now())) / (5 * rate)
			t.Logf("%s: %.2f of the link", f.name, part)
			if part < 0.7 {
				t.Errorf("%s: %.2f of the link", f.name, part)
			}
		}
		w.provider.SetFirewall(nil)
		time.Sleep(40 * time.Second) // a climb comes within 30 s
		if p := m.client.Status().Path; p == nil || p.Down != nil {
			t.Errorf("path where all passes: %+v", p)
		}
		up.end()
		down.end()
	})
}

// TestTwoWaysAtRest leaves an idle link alone for long: the NAT keeps the mapping of the
// way down, as something leaves there too.
func TestTwoWaysAtRest(t *testing.T) {
	const r = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		w := newWaysWorld(t, r)
		defer w.close()
		w.home.SetNAT(&lab.NAT{Outside: lab.Addrs("203.0.113.77"), UDPTimeout: 30 * time.Second})
		m := w.join("laptop", 10)
		m.host.Move("if0", w.home)
		<-m.client.Ready()
		near, far := m.pair(7)
		settle()
		w.provider.SetFirewall(oneWayPorts(sharedPort, otherPort))
		d := newFlow(t, "up", near, far, pace{size: 100, every: r})
		settle()
		d.end()
		if p := m.client.Status().Path; p == nil || p.Down == nil {
			t.Fatalf("path: %+v", p)
		}
		time.Sleep(20 * time.Minute)
		at := time.Now()
		down := newFlow(t, "down", far, near, pace{size: 100, every: r})
		time.Sleep(time.Second)
		if first := down.first(at); first.IsZero() || first.Sub(at) > 3*r {
			t.Errorf("the server's data comes after %v", first.Sub(at))
		}
		down.end()
	})
}
