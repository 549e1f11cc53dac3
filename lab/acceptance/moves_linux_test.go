//go:build netns

package acceptance

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// The networks that the moves lead through. The delays are those of a good
// home line, a mobile network and an office.
var accessNetworks = []netns.AccessConfig{
	{Name: "wifi", NAT: netns.KeepPorts, Delay: 5 * time.Millisecond},
	{Name: "cell", NAT: netns.RandomPorts, Delay: 20 * time.Millisecond},
	{Name: "office", NAT: netns.KeepPorts, Firewall: netns.TCPOnly, Delay: 5 * time.Millisecond},
	{Name: "hotel", NAT: netns.RandomPorts, Firewall: netns.TLSOnly, Delay: 10 * time.Millisecond},
}

const mega = 1000 * 1000

// A download and two interactive sessions live through moves to another NAT,
// to a network where only TCP passes, to one where only TLS does, and back.
func TestMovesDownload(t *testing.T) {
	ctx := within(t, 5*time.Minute)
	n := netns.New(t, netns.Config{Access: accessNetworks})
	started := time.Now()
	capture := n.Server.Capture("wan", 443)
	address := net.JoinHostPort(netns.TargetIPv4.String(), "8000")
	target, sshd := startSite(t, n, address), startSSHD(t, n)
	s := startServer(t, n)
	c := startClient(t, s, n.Clients[0])
	shells := []*shell{sshd.realShell(t, c), sshd.goShell(t, c)}
	ask := func(when string) {
		t.Helper()
		for _, sh := range shells {
			sh.ask(t, ctx, when)
		}
	}
	settled := func(encapsulation, access string) status {
		t.Helper()
		a := n.Access[slices.IndexFunc(n.Access, func(a *netns.Access) bool { return a.Name == access })]
		local := n.Clients[0].Addresses(access)[0]
		return c.await(t, ctx, "connected by "+encapsulation+" in "+access+", verdict "+a.NAT.String(), func(s status) bool {
			from, err := netip.ParseAddrPort(s.Path.Local)
			return err == nil && s.State == "connected" && s.Path.Encapsulation == encapsulation &&
				s.Path.Verdict == a.NAT.String() && from.Addr() == local
		})
	}
	const size = 300 * mega
	// The gate keeps the stream from ending before the last move; at each move
	// there are bytes on the way and more to come.
	const afterMove = 50 * mega
	d := startDownload(t, c, "http://"+address+"/stream?size=300000000")
	target.gate.set(60*mega + afterMove)
	d.reach(t, ctx, 60*mega)
	before := settled("udp", "wifi")
	atFirst := before

	firstMove := time.Now()
	// The log says how long each step took; nothing is asserted about it.
	lap := firstMove
	step := func(what string) {
		t.Logf("%6.0f ms %s", float64(time.Since(lap).Microseconds())/1000, what)
		lap = time.Now()
	}
	for i, move := range []struct {
		to, encapsulation string
		how               netns.Move
	}{
		{"cell", "udp", netns.Hard},
		{"office", "tcp", netns.Hard},
		{"hotel", "websocket", netns.Gap(500 * time.Millisecond)},
		{"wifi", "udp", netns.Hard},
	} {
		at := int64(i+1) * 60 * mega
		d.reach(t, ctx, at)
		step("until the move to " + move.to)
		ask("before the move to " + move.to)
		step("for answers before it")
		n.Clients[0].Move(move.to, move.how)
		ask("during the move to " + move.to)
		step("for the move and answers after it")
		settled(move.encapsulation, move.to)
		step("until the status is right")
		d.reach(t, ctx, at+afterMove-mega)
		step("for the next 50 MB, " + move.encapsulation)
		ask("after the move to " + move.to)
		// Data has flowed since, so a fall from the right path would show.
		now := settled(move.encapsulation, move.to)
		if !noticed(before, now) {
			t.Errorf("the client did not notice the move to %s by itself: %s", move.to, now)
		}
		if now.BytesReceived < before.BytesReceived+40*mega {
			t.Errorf("the status counts %d bytes received before the move to %s and %d after it", before.BytesReceived, move.to, now.BytesReceived)
		}
		before = now
		target.gate.set(min(size, at+60*mega+afterMove))
	}
	target.gate.set(size)
	<-d.done
	lastMove := time.Now()
	after := settled("udp", "wifi")
	t.Logf("after %s: %s", time.Since(firstMove), after)

	if d.err != nil {
		t.Fatalf("download: %v", d.err)
	}
	conns, sum := target.result()
	if d.sum != sum || sum == "" {
		t.Errorf("the stream's sum is %s at the target and %s at the client", sum, d.sum)
	}
	if len(conns) != 1 {
		t.Errorf("the target saw %d connections for one download: %v", len(conns), conns)
	}

	// IKE is in the capture where it belongs, so that its absence means something.
	capture.Stop()
	if m := capture.IKE(started, firstMove); len(m) < 4 {
		t.Errorf("the capture shows %d IKE messages of the connect; two exchanges have at least 4", len(m))
	}
	for _, m := range capture.IKE(firstMove, lastMove) {
		t.Errorf("an IKE message in a move: %+v", m)
	}
	if capture.Missing() > 0 {
		t.Errorf("%d connections in the capture cannot be read", capture.Missing())
	}
	if after.IKESent != atFirst.IKESent || after.IKEReceived != atFirst.IKEReceived {
		t.Errorf("IKE messages, maybe within TLS: %s\nbefore the moves: %s", after, atFirst)
	}
	wantPaths(t, n, capture, map[string]string{"wifi": "udp", "cell": "udp", "office": "tcp"})
	if tls, http := capture.Connections(); tls == 0 || http > 0 {
		t.Errorf("%d connections with TLS, %d with HTTP in the clear", tls, http)
	}
}

// noticed reports whether a registration between two statuses began because
// the host's addresses changed or a socket said so, and not for silence only.
func noticed(before, after status) bool {
	last := before.Registrations[len(before.Registrations)-1]
	for _, r := range after.Registrations {
		// A standby that takes over keeps its registration's number.
		later := r.Number > last.Number || r.Number == last.Number && r.Trigger != last.Trigger
		if later && (r.Trigger == "address" || r.Trigger == "socket") {
			return true
		}
	}
	return false
}

// wantPaths asserts that the same SA, a pair of SPIs, carried data by every
// one of these networks in this encapsulation.
func wantPaths(t *testing.T, n *netns.Network, capture *netns.Capture, paths map[string]string) {
	t.Helper()
	up, down := map[uint32]bool{}, map[uint32]bool{}
	seen := map[string]bool{}
	for _, s := range capture.ESP() {
		if s.From.Addr() == netns.ServerIPv4 {
			down[s.SPI] = true
			continue
		}
		up[s.SPI] = true
		for _, a := range n.Access {
			// A handful of packets is the registration, hundreds are data.
			if a.Uplink == s.From.Addr() && s.Packets > 200 {
				seen[a.Name+" "+s.Encapsulation] = true
			}
		}
	}
	for access, encapsulation := range paths {
		if !seen[access+" "+encapsulation] {
			t.Errorf("no data went by %s in %s", encapsulation, access)
		}
	}
	if len(up) != 1 || len(down) != 1 {
		t.Errorf("%d and %d SPIs to and from the server, want the same one all the time", len(up), len(down))
	}
}

// One client moves, and the other one notices nothing.
func TestTwoClients(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	n := netns.New(t, netns.Config{Access: accessNetworks[:3], Clients: []string{"mover", "sitter"}})
	n.Target.Serve(echoAddress, echo)
	s := startServer(t, n)
	mover, sitter := startClient(t, s, n.Clients[0]), startClient(t, s, n.Clients[1])
	moving, sitting := startPings(t, ctx, mover), startPings(t, ctx, sitter)
	connected := func(s status) bool { return s.State == "connected" && s.Path.Encapsulation == "udp" }
	before := sitter.await(t, ctx, "connected by udp", connected)
	mover.await(t, ctx, "connected by udp", connected)

	for _, move := range []struct {
		to  string
		how netns.Move
	}{
		{"cell", netns.Hard}, {"office", netns.Hard}, {"wifi", netns.Gap(300 * time.Millisecond)}, {"cell", netns.Soft}, {"wifi", netns.Hard},
	} {
		n.Clients[0].Move(move.to, move.how)
		from := n.Clients[0].Addresses(move.to)[0].String() + ":"
		mover.await(t, ctx, "connected in "+move.to, func(s status) bool {
			return s.State == "connected" && strings.HasPrefix(s.Path.Local, from)
		})
		// Both go on over the connections that they have.
		moving.more(t, ctx, "the client that moved to "+move.to)
		sitting.more(t, ctx, "the client that stayed")
	}

	after := sitter.status(t)
	if len(after.Registrations) != len(before.Registrations) {
		t.Errorf("the client that stayed registered again: %s\nbefore: %s", after, before)
	}
	if after.Path.Local != before.Path.Local || after.Path.Remote != before.Path.Remote ||
		after.Path.Encapsulation != before.Path.Encapsulation || !after.Path.Since.Equal(before.Path.Since) {
		t.Errorf("the path of the client that stayed changed from %+v to %+v", before.Path, after.Path)
	}
	if after.IKESent != before.IKESent || after.IKEReceived != before.IKEReceived {
		t.Errorf("the client that stayed exchanged IKE messages: %s\nbefore: %s", after, before)
	}
	if slices.Equal(before.Inner, mover.status(t).Inner) {
		t.Errorf("both clients are %v", before.Inner)
	}
}
