package lab

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A signal lets goroutines wait for a change of what the Internet's lock
// guards, in a select and without a goroutine of its own.
type signal struct{ c chan struct{} }

// wait gives a channel that is closed at the next broadcast. The caller holds
// the lock.
func (s *signal) wait() <-chan struct{} {
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

// broadcast wakes all who wait. The caller holds the lock.
func (s *signal) broadcast() {
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}

// A deadline is one of a conn's two. Guarded by the Internet's lock.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set sets the deadline; at its time, and now if that has passed, s is told.
// The zero time means none.
func (d *deadline) set(in *Internet, t time.Time, s *signal) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	s.broadcast()
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			in.mu.Lock()
			defer in.mu.Unlock()
			s.broadcast()
		})
	}
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// opError is what the net package's conns return.
func opError(op, network string, local, remote net.Addr, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: network, Source: local, Addr: remote, Err: err}
}

// contextError is ctx's error, as an error of op.
func contextError(ctx context.Context, op, network string, remote net.Addr) error {
	return &net.OpError{Op: op, Net: network, Addr: remote, Err: ctx.Err()}
}

func udpAddr(a netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(a) }
func tcpAddr(a netip.AddrPort) *net.TCPAddr { return net.TCPAddrFromAddrPort(a) }

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// wildcard gives the unspecified address for the zero Addr.
func wildcard(a netip.Addr) netip.Addr {
	if !a.IsValid() {
		return netip.IPv6Unspecified()
	}
	return a.Unmap().WithZone("")
}

// covers reports that a socket bound to bound takes what is for a. As on
// common systems, :: stands for IPv4, too.
func covers(bound, a netip.Addr) bool {
	if bound == a {
		return true
	}
	return bound.IsUnspecified() && (bound.Is6() || a.Is4())
}
