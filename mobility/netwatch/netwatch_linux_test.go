package netwatch

import (
	"bytes"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a network namespace of its own.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	errs := make(chan error)
	done := make(chan struct{})
	go func() {
		// Never unlocked: the thread ends with the goroutine, and the
		// namespace with its last socket.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			// Without root a user namespace would be needed, which a process
			// of several threads cannot enter.
			errs <- err
			return
		}
		close(errs)
		defer close(done)
		f()
	}()
	if err := <-errs; err != nil {
		if err != unix.EPERM {
			t.Fatal(err)
		}
		t.Log("not root: the changes of a real namespace are not looked at")
		return
	}
	<-done
}

func TestChangesInNamespace(t *testing.T) {
	inNamespace(t, func() {
		var log bytes.Buffer
		w, err := New(slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Error(err)
			return
		}
		defer w.Close()
		if log.Len() > 0 {
			t.Errorf("no netlink: %s", log.String())
			return
		}
		// want waits for news. Which reason comes first is the kernel's choice
		// and the rest is coalesced; TestReasonOf tells the reasons apart.
		want := func(why string) {
			if _, ok := <-w.Events(); !ok {
				t.Errorf("%s: the watcher has ended", why)
			}
		}
		try := func(err error) {
			if err != nil {
				t.Error(err)
				w.Close() // or the test waits for news that will not come
			}
		}
		drain := func() {
			for {
				select {
				case <-w.Events():
				default:
					return
				}
			}
		}
		drain()
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wlan0"}, PeerName: "ap0"}
		try(netlink.LinkAdd(link))
		want("a new link")
		addr, err := netlink.ParseAddr("192.0.2.10/24")
		try(err)
		drain()
		try(netlink.AddrAdd(link, addr))
		want("a new address")
		if ps, err := Snapshot(); err != nil || len(ps) != 0 {
			t.Errorf("interface is down, and yet %v, %v", ps, err)
		}
		try(netlink.LinkSetUp(link))
		if peer, err := netlink.LinkByName("ap0"); err != nil {
			t.Error(err)
		} else {
			try(netlink.LinkSetUp(peer))
		}
		if ps, err := Snapshot(); err != nil || len(ps) != 1 || ps[0] != netip.MustParsePrefix("192.0.2.10/24") {
			t.Errorf("got %v, %v", ps, err)
		}
		remote := netip.MustParseAddr("198.51.100.1")
		if got, err := LocalAddress(remote); err == nil {
			t.Errorf("no route, and yet %v", got)
		}
		drain()
		try(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Gw: netip.MustParseAddr("192.0.2.1").AsSlice()}))
		want("a new route")
		if got, err := LocalAddress(remote); err != nil || got != netip.MustParseAddr("192.0.2.10") {
			t.Errorf("got %v, %v", got, err)
		}
		drain()
		try(netlink.AddrDel(link, addr))
		want("an address less")
		if got, err := LocalAddress(remote); err == nil {
			t.Errorf("address is gone, and yet %v", got)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReasonOf(t *testing.T) {
	message := func(kind uint16) []byte {
		b := make([]byte, unix.SizeofNlMsghdr)
		b[0] = byte(len(b))
		b[4] = byte(kind)
		return b
	}
	for _, tt := range []struct {
		b    []byte
		want string
	}{
		{message(unix.RTM_DELADDR), ReasonAddress},
		{message(unix.RTM_NEWROUTE), ReasonRoute},
		{message(unix.RTM_DELLINK), ReasonLink},
		{message(unix.RTM_NEWNEIGH), ReasonNeighbour},
		{message(unix.RTM_NEWQDISC), ""},
		{append(message(unix.RTM_NEWQDISC), message(unix.RTM_NEWADDR)...), ReasonAddress},
		{nil, ""},
		{append([]byte{200}, make([]byte, 15)...), ReasonOverflow},
	} {
		if got := reasonOf(tt.b); got != tt.want {
			t.Errorf("%x: got %q, want %q", tt.b, got, tt.want)
		}
	}
}

func FuzzReasonOf(f *testing.F) {
	f.Add(make([]byte, unix.SizeofNlMsghdr))
	f.Fuzz(func(t *testing.T, b []byte) { reasonOf(b) })
}
