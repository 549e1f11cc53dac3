package lab_test

import (
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab"
)

func TestNATMapping(t *testing.T) {
	outside := lab.Addrs("198.51.100.7")
	peers := []netip.AddrPort{server443, netip.AddrPortFrom(serverAddr, 500)}
	for _, test := range []struct {
		name string
		nat  *lab.NAT
		want [2]string // how one socket looks to two ports of a server
	}{
		{"none", nil, [2]string{"192.168.1.2:4500", "192.168.1.2:4500"}},
		{"keeps the port", &lab.NAT{Outside: outside}, [2]string{"198.51.100.7:4500", "198.51.100.7:4500"}},
		{"changes the port", &lab.NAT{Outside: outside, ChangePort: true}, [2]string{"198.51.100.7:61001", "198.51.100.7:61001"}},
		{"keeps the address where one forwards the port", &lab.NAT{Outside: outside, Forwards: []lab.Forward{
			{Proto: lab.UDP, Port: 4500, Inside: netip.MustParseAddrPort("192.168.1.9:1")}}}, [2]string{"198.51.100.7:61001", "198.51.100.7:61001"}},
		{"depends on the address", &lab.NAT{Outside: outside, ChangePort: true, Mapping: lab.AddressDependent},
			[2]string{"198.51.100.7:61001", "198.51.100.7:61001"}},
		{"depends on address and port", &lab.NAT{Outside: outside, ChangePort: true, Mapping: lab.AddressAndPortDependent},
			[2]string{"198.51.100.7:61001", "198.51.100.7:61002"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(c *lab.NetworkConfig) { c.NAT = test.nat }, func(w *world) {
				c := must(w.client.ListenUDP(ctx, netip.MustParseAddrPort("192.168.1.2:4500")))
				defer c.Close()
				for i, to := range peers {
					s := must(w.server.ListenUDP(ctx, to))
					defer s.Close()
					must(c.WriteToUDPAddrPort([]byte("x"), to))
					_, from := readFrom(s)
					if from.String() != test.want[i] {
						t.Errorf("%v sees %v, want %v", to, from, test.want[i])
					}
					must(s.WriteToUDPAddrPort([]byte("y"), from))
					if got, from := readFrom(c); got != "y" || from != to {
						t.Errorf("reply %q from %v", got, from)
					}
				}
			})
		})
	}
}

func TestNATFiltering(t *testing.T) {
	other := lab.Addrs("203.0.113.9")[0]
	for _, test := range []struct {
		name      string
		filtering lab.Behaviour
		want      string // who gets an answer in: same endpoint, other port, other address
	}{
		{"independent", lab.EndpointIndependent, "same port address"},
		{"default", lab.Default, "same port"},
		{"address", lab.AddressDependent, "same port"},
		{"address and port", lab.AddressAndPortDependent, "same"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(c *lab.NetworkConfig) { c.NAT.Filtering = test.filtering }, func(w *world) {
				w.server.Attach("eth1", w.dc, other)
				c := must(w.client.ListenUDP(ctx, netip.AddrPort{}))
				defer c.Close()
				same := must(w.server.ListenUDP(ctx, server443))
				defer same.Close()
				must(c.WriteToUDPAddrPort(nil, server443))
				_, from := readFrom(same)
				var got []string
				for _, s := range []struct {
					from netip.AddrPort
					what string
				}{{server443, "same"}, {netip.AddrPortFrom(serverAddr, 80), "port"}, {netip.AddrPortFrom(other, 443), "address"}} {
					socket := same
					if s.what != "same" {
						socket = must(w.server.ListenUDP(ctx, s.from))
						defer socket.Close()
					}
					must(socket.WriteToUDPAddrPort([]byte(s.what), from))
				}
				time.Sleep(R)
				for _, e := range w.recording.Events(nil) {
					if e.Fate == lab.Delivered && e.Where == "client" {
						got = append(got, string(e.Payload))
					}
				}
				if s := strings.Join(got, " "); s != test.want {
					t.Errorf("let in %q, want %q", s, test.want)
				}
			})
		})
	}
}

func TestNATForgets(t *testing.T) {
	run(t, func(c *lab.NetworkConfig) { c.NAT.UDPTimeout, c.NAT.ChangePort = 30*time.Second, true }, func(w *world) {
		s := w.listenUDP()
		defer s.Close()
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer c.Close()
		seen := func() netip.AddrPort {
			must(c.Write([]byte("x")))
			_, from := readFrom(s)
			return from
		}
		answered := func(from netip.AddrPort) bool {
			must(s.WriteToUDPAddrPort([]byte("y"), from))
			c.SetReadDeadline(time.Now().Add(R))
			_, err := read(c)
			return err == nil
		}
		first := seen()
		time.Sleep(29 * time.Second)
		if !answered(first) {
			t.Error("the mapping ended before its time")
		}
		if again := seen(); again != first {
			t.Errorf("mapping changed from %v to %v", first, again)
		}
		time.Sleep(25 * time.Second)
		if !answered(first) {
			t.Error("outbound packets do not refresh")
		}
		time.Sleep(5 * time.Second)
		if answered(first) {
			t.Error("inbound packets refresh the mapping, or it never ends")
		}
		if again := seen(); again == first {
			t.Errorf("an ended mapping came back: %v", again)
		}
		w.home.SetNAT(&lab.NAT{Outside: lab.Addrs("198.51.100.8")})
		if again := seen(); again.Addr() != lab.Addrs("198.51.100.8")[0] {
			t.Errorf("behind the new NAT: %v", again)
		}
	})
}

func TestPortForward(t *testing.T) {
	run(t, nil, func(w *world) {
		office := w.AddNetwork("office", lab.NetworkConfig{
			Prefixes: lab.Prefixes("192.168.1.0/24"), // the same as at home
			Link:     lab.Link{Delay: 5 * ms},
			NAT: &lab.NAT{Outside: lab.Addrs("203.0.113.80"), Forwards: []lab.Forward{
				{Proto: lab.TCP, Port: 443, Inside: netip.MustParseAddrPort("192.168.1.2:8443")},
				{Proto: lab.UDP, Port: 443, Inside: netip.MustParseAddrPort("192.168.1.2:8443")},
			}},
		})
		inner := w.AddHost("inner")
		inner.Attach("eth0", office)
		outside := netip.MustParseAddrPort("203.0.113.80:443")
		l := must(inner.ListenTCP(ctx, netip.MustParseAddrPort("192.168.1.2:8443")))
		defer l.Close()
		clock := lab.NewClock(R)
		c := must(w.client.DialTCP(ctx, netip.Addr{}, outside))
		defer c.Close()
		w.wantElapsed("connected", clock, 1)
		s := must(l.Accept())
		defer s.Close()
		if got := s.LocalAddr().String(); got != "192.168.1.2:8443" {
			t.Errorf("server's local address %v", got)
		}
		if got := s.RemoteAddr().String(); got != "198.51.100.7:49152" {
			t.Errorf("server's remote address %v", got)
		}
		if got := c.RemoteAddr().String(); got != outside.String() {
			t.Errorf("client's remote address %v", got)
		}

		u := must(w.client.DialUDP(ctx, netip.Addr{}, outside))
		defer u.Close()
		must(u.Write([]byte("x")))
		_, err := read(u)
		w.wantErr("a refusal finds its way through both NATs", err, syscall.ECONNREFUSED)
		su := must(inner.ListenUDP(ctx, netip.MustParseAddrPort("192.168.1.2:8443")))
		defer su.Close()
		must(u.Write([]byte("x")))
		_, from := readFrom(su)
		must(su.WriteToUDPAddrPort([]byte("y"), from))
		if got, err := read(u); got != "y" || err != nil {
			t.Errorf("reply %q, %v", got, err)
		}

		if _, err := w.client.DialTCP(ctx, netip.Addr{}, netip.MustParseAddrPort("203.0.113.80:22")); err == nil {
			t.Error("a port that is not forwarded is open")
		}
	})
}

func TestNestedNATsAndHairpin(t *testing.T) {
	run(t, nil, func(w *world) {
		isp := w.AddNetwork("isp", lab.NetworkConfig{Link: lab.Link{Delay: 10 * ms}, NAT: &lab.NAT{Outside: lab.Addrs("198.51.100.99"), ChangePort: true}})
		flat := w.AddNetwork("flat", lab.NetworkConfig{
			Parent: isp, Prefixes: lab.Prefixes("10.0.0.0/24"), Link: lab.Link{Delay: 10 * ms}, NAT: &lab.NAT{Outside: lab.Addrs("100.64.0.1")},
		})
		w.client.Move("wlan0", flat)
		s := w.listenUDP()
		defer s.Close()
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer c.Close()
		clock := lab.NewClock(R)
		must(c.Write(nil))
		_, from := readFrom(s)
		w.wantElapsed("through both", clock, 0.5)
		if from.String() != "198.51.100.99:61001" {
			t.Errorf("seen as %v", from)
		}
		must(s.WriteToUDPAddrPort([]byte("y"), from))
		if got, err := read(c); got != "y" || err != nil {
			t.Errorf("reply %q, %v", got, err)
		}

		// A neighbour sends to the outside of the NAT that both are behind.
		neighbour := w.AddHost("neighbour")
		neighbour.Attach("eth0", flat)
		a := must(w.client.ListenUDP(ctx, netip.MustParseAddrPort("10.0.0.2:7")))
		defer a.Close()
		b := must(neighbour.ListenUDP(ctx, netip.MustParseAddrPort("10.0.0.3:8")))
		defer b.Close()
		must(a.WriteToUDPAddrPort(nil, netip.MustParseAddrPort("100.64.0.1:8")))
		must(b.WriteToUDPAddrPort([]byte("hairpin"), netip.MustParseAddrPort("100.64.0.1:7")))
		if got, from := readFrom(a); got != "hairpin" || from.String() != "100.64.0.1:8" {
			t.Errorf("got %q from %v", got, from)
		}
	})
}

func TestNAT64(t *testing.T) {
	run(t, func(c *lab.NetworkConfig) {
		c.Prefixes = lab.Prefixes("2001:db8:1::/64")
		c.NAT.NAT64 = lab.Prefixes("64:ff9b::/96")[0]
	}, func(w *world) {
		if _, err := w.client.LocalAddress(serverAddr); err != syscall.ENETUNREACH {
			t.Errorf("IPv4 from an IPv6 network: %v", err)
		}
		l := must(w.server.ListenTCP(ctx, server443))
		defer l.Close()
		remote := netip.MustParseAddrPort("[64:ff9b::203.0.113.1]:443")
		c := must(w.client.DialTCP(ctx, netip.Addr{}, remote))
		defer c.Close()
		s := must(l.Accept())
		defer s.Close()
		if got := s.RemoteAddr().String(); got != "198.51.100.7:49152" {
			t.Errorf("server's remote address %v", got)
		}
		must(s.Write([]byte("y")))
		if got, err := read(c); got != "y" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		// IPv6 itself is not translated.
		c6 := must(w.client.DialUDP(ctx, netip.Addr{}, netip.MustParseAddrPort("[2001:db8:2::1]:443")))
		defer c6.Close()
		s6 := w.listenUDP()
		defer s6.Close()
		must(c6.Write(nil))
		if _, from := readFrom(s6); from.Addr() != lab.Addrs("2001:db8:1::2")[0] {
			t.Errorf("seen as %v", from)
		}
	})
}

func TestFirewall(t *testing.T) {
	tls, plain := "\x16\x03\x01\x00\x05hello", "GET / HTTP/1.1\r\n"
	for _, test := range []struct {
		name                       string
		firewall                   lab.Firewall
		udp, tcp443, tls443, tcp80 string // ok, or what fails
	}{
		{"open", nil, "ok", "ok", "ok", "ok"},
		{"DropUDP", lab.DropUDP, "silent", "ok", "ok", "ok"},
		{"OnlyTCP", lab.OnlyTCP, "silent", "ok", "ok", "ok"},
		{"DropTCP", lab.DropTCP, "ok", "silent", "silent", "silent"},
		{"OnlyPort", lab.OnlyPort(443), "ok", "ok", "ok", "silent"},
		{"OnlyTLS443", lab.OnlyTLS443, "silent", "reset", "ok", "silent"},
		{"Reset", func(lab.Packet) lab.Verdict { return lab.Reset }, "refused", "refused", "refused", "refused"},
		{"Outbound", lab.Outbound(lab.DropUDP), "silent", "ok", "ok", "ok"},
		{"Inbound", lab.Inbound(lab.DropUDP), "silent", "ok", "ok", "ok"},
		{"Chain", lab.Chain(lab.DropUDP, nil, lab.OnlyPort(80)), "silent", "silent", "silent", "ok"},
		{"DropLarger", lab.DropLarger(12), "ok", "silent", "ok", "silent"},
		{"DropAll", lab.DropAll, "silent", "silent", "silent", "silent"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(c *lab.NetworkConfig) { c.Firewall = test.firewall }, func(w *world) {
				for _, x := range []struct {
					name, network string
					port          uint16
					payload, want string
				}{
					{"udp", "udp", 443, "x", test.udp},
					{"tcp443", "tcp", 443, plain, test.tcp443},
					{"tls443", "tcp", 443, tls, test.tls443},
					{"tcp80", "tcp", 80, plain, test.tcp80},
				} {
					if got := w.echo(x.network, x.port, x.payload); got != x.want {
						t.Errorf("%s: %s, want %s", x.name, got, x.want)
					}
				}
			})
		})
	}
}

// echo sends payload to an echoing server and says what came of it.
func (w *world) echo(network string, port uint16, payload string) string {
	at := netip.AddrPortFrom(serverAddr, port)
	verdict := func(err error) string {
		switch {
		case err == nil:
			return "ok"
		case isErr(err, os.ErrDeadlineExceeded), isErr(err, syscall.ETIMEDOUT):
			return "silent"
		case isErr(err, syscall.ECONNREFUSED):
			return "refused"
		case isErr(err, syscall.ECONNRESET):
			return "reset"
		}
		return err.Error()
	}
	if network == "udp" {
		s := must(w.server.ListenUDP(ctx, at))
		defer s.Close()
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := s.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				s.WriteToUDPAddrPort(b[:n], from)
			}
		}()
		c := must(w.client.DialUDP(ctx, netip.Addr{}, at))
		defer c.Close()
		must(c.Write([]byte(payload)))
		c.SetReadDeadline(time.Now().Add(2 * R))
		_, err := read(c)
		return verdict(err)
	}
	l := must(w.server.ListenTCP(ctx, at))
	defer l.Close()
	go func() {
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer s.Close()
				for {
					got, err := read(s)
					if err != nil {
						return
					}
					s.Write([]byte(got))
				}
			}()
		}
	}()
	c, err := w.client.DialTCP(ctx, netip.Addr{}, at)
	if err != nil {
		return verdict(err)
	}
	defer c.Close()
	must(c.Write([]byte(payload)))
	c.SetReadDeadline(time.Now().Add(2 * R))
	_, err = read(c)
	return verdict(err)
}
