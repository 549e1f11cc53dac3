package netns

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Port is one end of a wire.
type Port struct {
	Host   *Host
	Dev    string // name of the device there
	MTU    int    // 1500 if 0
	Bridge string // of the host, that the device becomes a part of; "" for none
	Addrs  []netip.Prefix
}

// Wire joins two hosts by an Ethernet cable and takes both ends up. As on a
// real one, and unlike on a plain pair of virtual devices, only frames within
// the MTU and with right checksums are on it.
func (l *Lab) Wire(a, b Port) {
	l.t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU = a.Dev, a.mtu()
	err := a.Host.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: la, PeerName: b.Dev, PeerMTU: uint32(b.mtu()), PeerNamespace: netlink.NsFd(b.Host.ns),
	})
	if err != nil {
		l.t.Fatalf("wire %s:%s to %s:%s: %v", a.Host.Name, a.Dev, b.Host.Name, b.Dev, err)
	}
	for _, p := range []Port{a, b} {
		h, link := p.Host, p.Host.link(p.Dev)
		// The kernel cuts before the device what would be more than one segment.
		err := h.nl.LinkSetGSOMaxSegs(link, 1)
		if err == nil {
			err = h.Do(func() error { return checksumOffload(p.Dev, false) })
		}
		if err != nil {
			l.t.Fatalf("offloads of %s at %s: %v", p.Dev, h.Name, err)
		}
		if p.Bridge != "" {
			if err := h.nl.LinkSetMaster(link, h.link(p.Bridge)); err != nil {
				l.t.Fatalf("plug %s into %s at %s: %v", p.Dev, p.Bridge, h.Name, err)
			}
		}
		h.Address(p.Dev, p.Addrs...)
		h.Up(p.Dev)
	}
	a.Host.ready(a.Dev)
	b.Host.ready(b.Dev)
}

// ready waits until a device that is up passes packets. The kernel notices a
// carrier a little after it has come, and what is sent before that is lost;
// if it is the first address resolution, the next one is a second away.
func (h *Host) ready(dev string) {
	h.lab.t.Helper()
	for start := time.Now(); ; time.Sleep(200 * time.Microsecond) {
		switch s := h.link(dev).Attrs().OperState; {
		case s == netlink.OperUp || s == netlink.OperUnknown:
			return
		case time.Since(start) > 10*time.Second:
			h.lab.t.Fatalf("device %s at %s stays %s", dev, h.Name, s)
		}
	}
}

func (p Port) mtu() int {
	if p.MTU == 0 {
		return 1500
	}
	return p.MTU
}

// Bridge makes an Ethernet switch of a host, with addresses of the host's own.
func (h *Host) Bridge(dev string, addrs ...netip.Prefix) {
	h.lab.t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name = dev
	if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: la}); err != nil {
		h.lab.t.Fatalf("bridge %s at %s: %v", dev, h.Name, err)
	}
	h.Address(dev, addrs...)
	h.Up(dev)
}

// checksumOffload is ethtool -K dev tx on|off, in the current namespace.
func checksumOffload(dev string, on bool) error {
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_STXCSUM}
	if on {
		value.data = 1
	}
	// struct ifreq of linux/if.h: a name and a union, here a pointer.
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	if len(dev) >= len(req.name) {
		return fmt.Errorf("device name %q is too long", dev)
	}
	copy(req.name[:], dev)
	req.data = unsafe.Pointer(&value)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return fmt.Errorf("ethtool: %w", errno)
	}
	return nil
}
