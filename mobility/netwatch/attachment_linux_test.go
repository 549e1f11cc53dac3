package netwatch

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestSameAddressesBehindAnotherRouter changes nothing but the router's link
// address, as when one home network is left for another of the same make.
func TestSameAddressesBehindAnotherRouter(t *testing.T) {
	inNamespace(t, func() {
		fail := func(err error) bool {
			if err != nil {
				t.Error(err)
			}
			return err != nil
		}
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wlan0"}, PeerName: "ap0"}
		if fail(netlink.LinkAdd(link)) {
			return
		}
		peer, err := netlink.LinkByName("ap0")
		addr, err2 := netlink.ParseAddr("192.0.2.10/24")
		gateway := netip.MustParseAddr("192.0.2.1")
		if fail(err) || fail(err2) || fail(netlink.AddrAdd(link, addr)) || fail(netlink.LinkSetUp(peer)) || fail(netlink.LinkSetUp(link)) ||
			fail(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Gw: gateway.AsSlice()})) {
			return
		}
		router := func(mac string) {
			hw, _ := net.ParseMAC(mac)
			fail(netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Index, State: unix.NUD_REACHABLE, IP: gateway.AsSlice(), HardwareAddr: hw}))
		}
		router("02:00:00:00:00:01")
		remote := netip.MustParseAddr("198.51.100.1")
		before, err := AttachmentTo(remote)
		if fail(err) {
			return
		}
		want := Attachment{
			Source: netip.MustParseAddr("192.0.2.10"), Prefix: netip.MustParsePrefix("192.0.2.0/24"), Interface: "wlan0", Index: link.Index,
			Ups: before.Ups, Gateway: gateway, GatewayLink: "02:00:00:00:00:01",
		}
		if before != want {
			t.Errorf("got %+v, want %+v", before, want)
		}
		w, err := New(slog.New(slog.DiscardHandler))
		if fail(err) {
			return
		}
		defer w.Close()
		router("02:00:00:00:00:02")
		<-w.Events()
		after, err := AttachmentTo(remote)
		if _, moved := before.Follow(after); fail(err) || !moved {
			t.Errorf("another router went unnoticed: %+v", after)
		}
		// A carrier that was gone for a moment leaves nothing else behind.
		if fail(netlink.LinkSetDown(peer)) || fail(netlink.LinkSetUp(peer)) {
			return
		}
		if flapped, err := AttachmentTo(remote); fail(err) || flapped.Ups == before.Ups {
			t.Errorf("a lost carrier went unnoticed: %+v", flapped)
		}
	})
}

func FuzzAttributesOf(f *testing.F) {
	b := make([]byte, unix.SizeofNlMsghdr)
	b[0], b[4] = 28, unix.RTM_NEWLINK
	f.Add(append(b, attribute(unix.RTA_DST, []byte{1, 2, 3, 4, 5})...), 0)
	f.Fuzz(func(t *testing.T, b []byte, header int) {
		if header < 0 {
			return
		}
		_, _ = attributesOf(b, header)
	})
}
