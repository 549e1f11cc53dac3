//go:build netns

package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patience ends a test that hangs; nothing is asserted about time.
const patience = 30 * time.Second

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// peers answers at the server: each TCP connection to port hears the address
// it came from and then its own bytes.
func peers(n *Network, port int) {
	for _, address := range []netip.Addr{ServerIPv4, ServerIPv6} {
		n.Server.Serve(netip.AddrPortFrom(address, uint16(port)).String(), func(c net.Conn) {
			fmt.Fprintln(c, c.RemoteAddr())
			_, _ = io.Copy(c, c)
		})
	}
}

// seenAs connects from the client and gives both ends' idea of its address.
func seenAs(t *testing.T, c *Client, server netip.Addr, port int) (sent, seen netip.AddrPort) {
	t.Helper()
	conn, err := c.DialContext(deadline(t), "tcp", netip.AddrPortFrom(server, uint16(port)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var s string
	if _, err := fmt.Fscanln(conn, &s); err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(conn.LocalAddr().String()), netip.MustParseAddrPort(s)
}

func TestNAT(t *testing.T) {
	n := New(t, Config{Access: []AccessConfig{
		{Name: "none", NAT: NoNAT, Families: DualStack},
		{Name: "keep", NAT: KeepPorts, Families: DualStack},
		{Name: "random", NAT: RandomPorts, Families: DualStack, Delay: time.Millisecond},
	}})
	c := n.Clients[0]
	peers(n, 443)
	for _, a := range n.Access {
		c.Move(a.Name, Hard)
		for _, server := range []netip.Addr{ServerIPv4, ServerIPv6} {
			// A port that stays by chance once does not stay four times.
			samePort, sameAddr := 0, 0
			for range 4 {
				sent, seen := seenAs(t, c, server, 443)
				if sent.Port() == seen.Port() {
					samePort++
				}
				if sent.Addr() == seen.Addr() {
					sameAddr++
				}
				if a.NAT != NoNAT && server.Is4() && seen.Addr() != a.Uplink {
					t.Errorf("%s: seen as %s, want %s", a.Name, seen, a.Uplink)
				}
			}
			if (samePort == 4) != (a.NAT != RandomPorts) || (sameAddr == 4) != (a.NAT == NoNAT) {
				t.Errorf("%s to %s: %d ports and %d addresses of 4 stayed", a.Name, server, samePort, sameAddr)
			}
		}
	}
}

func TestTargetOnlyFromServer(t *testing.T) {
	n := New(t, Config{Access: []AccessConfig{{Name: "wifi"}}})
	address := netip.AddrPortFrom(TargetIPv4, 80).String()
	n.Target.Serve(address, func(net.Conn) {})
	c, err := n.Server.DialContext(deadline(t), "tcp", address)
	if err != nil {
		t.Fatalf("from the server: %v", err)
	}
	c.Close()
	if c, err := n.Clients[0].DialContext(deadline(t), "tcp", address); err == nil {
		c.Close()
		t.Error("the client reaches the target by itself")
	}
}

// pingUDP reports whether a datagram comes back. What should not come is
// shown to be lost by one over TCP that was sent later and did come.
func udpPasses(t *testing.T, n *Network, c *Client) bool {
	t.Helper()
	server := n.Server.ListenPacket("udp", netip.AddrPortFrom(ServerIPv4, 4500).String())
	defer server.Close()
	conn, err := c.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	seenAs(t, c, ServerIPv4, 443)
	// Both went the same way in order, so the datagram is there or lost.
	_ = server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, _, err = server.ReadFrom(make([]byte, 10))
	return err == nil
}

// talk sends the first bytes of a connection and hears whether they come back.
func talk(t *testing.T, c *Client, port int, first string) bool {
	t.Helper()
	conn, err := c.DialContext(deadline(t), "tcp", netip.AddrPortFrom(ServerIPv4, uint16(port)).String())
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var s string
	_, err = fmt.Fscanln(conn, &s)
	for _, part := range []string{first, "and more"} {
		if err == nil {
			_, err = io.WriteString(conn, part)
		}
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, len(part)))
		}
	}
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Fatalf("%q to port %d hangs", first, port)
	}
	return err == nil
}

func TestFirewalls(t *testing.T) {
	n := New(t, Config{Access: []AccessConfig{{Name: "cafe", NAT: KeepPorts}}})
	c, cafe := n.Clients[0], n.Access[0]
	peers(n, 443)
	peers(n, 8443)
	const hello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	for _, tt := range []struct {
		name       string
		firewall   Firewall
		udp        bool
		port       int
		first      string
		connection bool
	}{
		{"all allowed", AllowAll, true, 8443, streamPrefix, true},
		{"TCP only", TCPOnly, false, 8443, streamPrefix, true},
		{"TLS to 443", TLSOnly, false, 443, hello, true},
		{"framed packets to 443", TLSOnly, false, 443, streamPrefix, false},
		{"HTTP to 443", TLSOnly, false, 443, "GET / HTTP/1.1\r\n", false},
		{"something like TLS", TLSOnly, false, 443, "\x16\x04\x01", false},
		{"TLS to another port", TLSOnly, false, 8443, hello, false},
	} {
		cafe.SetFirewall(tt.firewall)
		if got := talk(t, c, tt.port, tt.first); got != tt.connection {
			t.Errorf("%s: connection %v", tt.name, got)
		}
		if tt.firewall != TLSOnly {
			if got := udpPasses(t, n, c); got != tt.udp {
				t.Errorf("%s: UDP %v", tt.name, got)
			}
		}
	}
}

func TestMoves(t *testing.T) {
	n := New(t, Config{Access: []AccessConfig{{Name: "a"}, {Name: "b"}, {Name: "c"}}, Clients: []string{"one", "two"}})
	c := n.Clients[0]
	peers(n, 443)
	for _, tt := range []struct {
		to    string
		how   Move
		stays string // a link that is up too
	}{
		{"b", Hard, ""}, {"c", Gap(time.Millisecond), ""}, {"a", Soft, "c"}, {"b", Hard, ""}, {"a", Hard, ""},
	} {
		c.Move(tt.to, tt.how)
		sent, _ := seenAs(t, c, ServerIPv4, 443)
		if want := c.Addresses(tt.to)[0]; sent.Addr() != want {
			t.Errorf("moved to %s: sends from %s, want %s", tt.to, sent.Addr(), want)
		}
		for _, a := range n.Access {
			addrs, err := c.nl.AddrList(c.link(a.Name), 2) // AF_INET
			if err != nil {
				t.Fatal(err)
			}
			if up := len(addrs) > 0; up != (a.Name == tt.to || a.Name == tt.stays) {
				t.Errorf("moved to %s: %s has addresses: %v", tt.to, a.Name, up)
			}
		}
	}
	if sent, _ := seenAs(t, n.Clients[1], ServerIPv4, 443); sent.Addr() != n.Clients[1].Addresses("a")[0] {
		t.Errorf("the client that did not move sends from %s", sent)
	}
}

// A capture sees every byte of a bulk transfer through the relay: its
// dissector fails on a single missing one.
func TestRelayAndCapture(t *testing.T) {
	n := New(t, Config{Access: []AccessConfig{{Name: "wifi", NAT: KeepPorts, Delay: 5 * time.Millisecond}}})
	capture := n.Server.Capture("wan", 443)
	packet := inLength(espPacket(77, 1400))
	const packets = 60000
	address := netip.AddrPortFrom(ServerIPv4, 443).String()
	n.Server.Serve(address, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(streamPrefix))); err != nil {
			return
		}
		for i := range packets {
			if i == packets/2 {
				_, _ = c.Write(inLength(ikeMessage(37, 5)))
			}
			_, _ = c.Write(packet)
		}
	})
	start := time.Now()
	conn, err := n.Clients[0].DialContext(deadline(t), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, streamPrefix)
	got, err := io.Copy(io.Discard, conn)
	if want := int64(packets*len(packet) + len(inLength(ikeMessage(37, 5)))); err != nil || got != want {
		t.Fatalf("got %d bytes of %d: %v", got, want, err)
	}
	t.Logf("%.0f MB/s, the relay dropped %d", float64(got)/time.Since(start).Seconds()/1e6, n.Access[0].Relay.Dropped())
	capture.Stop()
	ike := capture.IKE(start, time.Now())
	if len(ike) != 1 || ike[0].Exchange != 37 {
		t.Errorf("IKE: %+v", ike)
	}
	esp := capture.ESP()
	if len(esp) != 1 || esp[0].Packets != packets || esp[0].SPI != 77 || capture.Missing() != 0 {
		t.Errorf("ESP: %+v, missing %d", esp, capture.Missing())
	}
}

func TestProcesses(t *testing.T) {
	n := New(t, Config{Access: []AccessConfig{{Name: "wifi"}}})
	n.Target.Resolver(netip.MustParseAddr("192.0.2.53"))
	p := n.Target.Start("cat", "/etc/resolv.conf", "-")
	if err := p.Stdout.Expect(deadline(t), "192.0.2.53"); err != nil {
		t.Error(err)
	}
	if err := p.Stdout.Expect(deadline(t), "no such text"); err == nil {
		t.Error("found what is not there")
	}
	if code, err := p.Wait(deadline(t)); code != 0 || err != nil {
		t.Errorf("code %d: %v", code, err)
	}
}

// Nothing stays behind: not this test's namespaces, and not those of a run
// whose process is gone.
func TestCleanUp(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	left := fmt.Sprintf("gw%dr0000-left", dead.Process.Pid)
	if out, err := exec.Command("ip", "netns", "add", left).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var ns string
	var p *Process
	t.Run("a test", func(t *testing.T) {
		l := NewLab(t)
		h := l.Host("h")
		ns = h.NS
		p = h.Start("sleep", "1000")
	})
	<-p.Done()
	entries, err := os.ReadDir(namespaces)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == left || e.Name() == ns || strings.HasPrefix(e.Name(), ns) {
			t.Errorf("%s stayed", e.Name())
		}
	}
	for _, dir := range []string{overlays + "/" + ns, overlays + "/" + left} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s stayed", dir)
		}
	}
}
