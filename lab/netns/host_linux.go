package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Host is one namespace.
type Host struct {
	Name string // within the lab
	NS   string // of the namespace, as ip netns lists it

	lab *Lab
	ns  netns.NsHandle
	nl  *netlink.Handle
}

// Host makes a namespace with its loopback up. No name resolves in it but
// localhost, until Resolver says otherwise.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	h := &Host{Name: name, NS: l.prefix + name, lab: l}
	if out, err := exec.Command("ip", "netns", "add", h.NS).CombinedOutput(); err != nil {
		l.t.Fatalf("make namespace %s: %v: %s", h.NS, err, out)
	}
	var err error
	if h.ns, err = netns.GetFromName(h.NS); err == nil {
		h.nl, err = netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE)
	}
	if err != nil {
		_ = remove(h.NS)
		l.t.Fatalf("open namespace %s: %v", h.NS, err)
	}
	l.hosts = append(l.hosts, h)
	h.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	h.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	h.Sysctl("net.ipv6.conf.default.accept_ra", "0")
	h.Up("lo")
	h.overlay("hosts", "127.0.0.1 localhost\n::1 localhost\n")
	h.Resolver()
	return h
}

// Do runs f on a thread that is in the namespace; sockets that f opens on its
// own goroutine stay there.
func (h *Host) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so none
		// that is in another namespace goes back to the scheduler.
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", h.NS, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// DialContext connects from the namespace to a numeric address.
func (h *Host) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Dial is DialContext without a context, for proxy.Dialer.
func (h *Host) Dial(network, address string) (net.Conn, error) {
	return h.DialContext(context.Background(), network, address)
}

// Listen listens in the namespace until the test ends.
func (h *Host) Listen(network, address string) net.Listener {
	h.lab.t.Helper()
	var ln net.Listener
	if err := h.Do(func() (err error) { ln, err = net.Listen(network, address); return err }); err != nil {
		h.lab.t.Fatalf("listen at %s: %v", h.Name, err)
	}
	h.lab.t.Cleanup(func() { ln.Close() })
	return ln
}

// ListenPacket is Listen for datagrams.
func (h *Host) ListenPacket(network, address string) net.PacketConn {
	h.lab.t.Helper()
	var c net.PacketConn
	if err := h.Do(func() (err error) { c, err = net.ListenPacket(network, address); return err }); err != nil {
		h.lab.t.Fatalf("listen at %s: %v", h.Name, err)
	}
	h.lab.t.Cleanup(func() { c.Close() })
	return c
}

// Serve listens in the namespace and calls handle for each connection. When the
// test ends, it closes the connections that are open and waits for the calls.
func (h *Host) Serve(address string, handle func(net.Conn)) {
	h.lab.t.Helper()
	var calls sync.WaitGroup
	h.lab.t.Cleanup(calls.Wait)
	ctx, cancel := context.WithCancel(context.Background())
	h.lab.t.Cleanup(cancel)
	ln := h.Listen("tcp", address)
	calls.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			calls.Go(func() {
				defer stop()
				defer c.Close()
				handle(c)
			})
		}
	})
}

// Sysctl sets a kernel parameter of the namespace, such as net.ipv4.ip_forward.
func (h *Host) Sysctl(key, value string) {
	h.lab.t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	if err := h.Do(func() error { return os.WriteFile(path, []byte(value), 0o644) }); err != nil {
		h.lab.t.Fatalf("sysctl at %s: %v", h.Name, err)
	}
}

// Forward makes the host a router.
func (h *Host) Forward() {
	h.lab.t.Helper()
	h.Sysctl("net.ipv4.ip_forward", "1")
	h.Sysctl("net.ipv6.conf.all.forwarding", "1")
}

// Resolver makes processes of the host ask these name servers, or none.
func (h *Host) Resolver(servers ...netip.Addr) {
	h.lab.t.Helper()
	// One short attempt: a test that asks where no answer can come should hear
	// so soon.
	b := "options timeout:1 attempts:1\n"
	for _, s := range servers {
		b += "nameserver " + s.String() + "\n"
	}
	h.overlay("resolv.conf", b)
}

// overlay gives processes of the host a file of their own in /etc.
func (h *Host) overlay(name, content string) {
	h.lab.t.Helper()
	dir := filepath.Join(overlays, h.NS)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)
	}
	if err != nil {
		h.lab.t.Fatalf("overlay of %s: %v", h.Name, err)
	}
}

// Rules loads an nftables ruleset.
func (h *Host) Rules(nft string) {
	h.lab.t.Helper()
	cmd := h.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(nft)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.lab.t.Fatalf("nft at %s: %v\n%s\n%s", h.Name, err, out, nft)
	}
}

// Address adds addresses to a device.
func (h *Host) Address(dev string, prefixes ...netip.Prefix) {
	h.lab.t.Helper()
	link := h.link(dev)
	for _, p := range prefixes {
		a := address(p)
		if p.Addr().Is6() {
			// Duplicate address detection would hold the address back for a second.
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.nl.AddrReplace(link, a); err != nil {
			h.lab.t.Fatalf("add %s to %s at %s: %v", p, dev, h.Name, err)
		}
	}
}

// Up takes a device up.
func (h *Host) Up(dev string) {
	h.lab.t.Helper()
	if err := h.nl.LinkSetUp(h.link(dev)); err != nil {
		h.lab.t.Fatalf("take %s up at %s: %v", dev, h.Name, err)
	}
}

// Down takes a device down and its addresses away.
func (h *Host) Down(dev string) {
	h.lab.t.Helper()
	link := h.link(dev)
	if err := h.nl.LinkSetDown(link); err != nil {
		h.lab.t.Fatalf("take %s down at %s: %v", dev, h.Name, err)
	}
	// IPv6 addresses went with the link; IPv4 ones stay until taken.
	addrs, err := h.nl.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		h.lab.t.Fatalf("list addresses of %s at %s: %v", dev, h.Name, err)
	}
	for _, a := range addrs {
		if err := h.nl.AddrDel(link, &a); err != nil {
			h.lab.t.Fatalf("take %s from %s at %s: %v", a.IP, dev, h.Name, err)
		}
	}
}

// Route adds a route or replaces one of the same metric. Metric 0 is the
// kernel's default.
func (h *Host) Route(dst netip.Prefix, via netip.Addr, dev string, metric int) {
	h.lab.t.Helper()
	r := &netlink.Route{
		LinkIndex: h.link(dev).Attrs().Index,
		Dst:       address(dst.Masked()).IPNet,
		Gw:        via.AsSlice(),
		Priority:  metric,
	}
	if err := h.nl.RouteReplace(r); err != nil {
		h.lab.t.Fatalf("route %s via %s at %s: %v", dst, via, h.Name, err)
	}
}

func (h *Host) link(dev string) netlink.Link {
	h.lab.t.Helper()
	link, err := h.nl.LinkByName(dev)
	if err != nil {
		h.lab.t.Fatalf("device %s at %s: %v", dev, h.Name, err)
	}
	return link
}

func address(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
}

// Lab is the lab that the host is in.
func (h *Host) Lab() *Lab { return h.lab }
