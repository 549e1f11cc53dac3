//go:build netns

package acceptance

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/godwit-net/godwit/lab/netns"
)

// udpHeader is what RFC 1928, Section 7 puts before a datagram to an IPv4
// address: two bytes reserved, fragment, address type, address, port.
func udpHeader(to netip.AddrPort) []byte {
	a := to.Addr().As4()
	return append([]byte{0, 0, 0, 1}, a[0], a[1], a[2], a[3], byte(to.Port()>>8), byte(to.Port()))
}

// Names are asked for over UDP ASSOCIATE, before and after a move, by one socket
// all the time: the name server sees one source.
func TestDNSOverAssociate(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	n := netns.New(t, netns.Config{Access: accessNetworks[:2]})
	at := netip.AddrPortFrom(netns.TargetIPv4, 53)
	pc := n.Target.ListenPacket("udp", at.String())
	sources := make(map[string]int)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			k, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			sources[from.String()]++
			var m dnsmessage.Message
			if m.Unpack(b[:k]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response = true
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 80}},
			}}
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	s := startServer(t, n)
	c := startClient(t, s, n.Clients[0])

	app := newAssociate(t, c.host.Host)
	id := uint16(0)
	ask := func(when string) {
		t.Helper()
		id++
		name := dnsmessage.MustNewName(fmt.Sprintf("name%d.test.", id))
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		body, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1500)
		for try := 0; ; try++ { // as a resolver does
			if _, err := app.Write(append(udpHeader(at), body...)); err != nil {
				t.Fatal(err)
			}
			_ = app.SetReadDeadline(time.Now().Add(2 * time.Second))
			var m dnsmessage.Message
			var err error
			for m.ID != id && err == nil { // around a move a datagram may come twice
				var k int
				if k, err = app.Read(b); err == nil {
					err = m.Unpack(b[len(udpHeader(at)):k])
				}
			}
			if err != nil && try < 5 {
				continue
			}
			if err != nil || len(m.Answers) != 1 || !strings.HasPrefix(string(b), string(udpHeader(at))) {
				t.Fatalf("%s: %+v, %v", when, m, err)
			}
			return
		}
	}
	for range 5 {
		ask("before the move")
	}
	n.Clients[0].Move("cell", netns.Hard)
	ask("right after the move")
	c.await(t, ctx, "connected in the other network", func(s status) bool { return s.State == "connected" && s.Path.Verdict == "napt" })
	for range 5 {
		ask("after the move")
	}
	_ = pc.Close()
	<-done
	if len(sources) != 1 {
		t.Errorf("the name server saw %v, want one source", sources)
	}
	for from := range sources {
		if host, _, _ := net.SplitHostPort(from); host == netns.TargetIPv4.String() {
			t.Errorf("the source is %s", from)
		}
	}
}
