package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// A Dialer opens a connection to the target.
type Dialer func(context.Context) (net.Conn, error)

// Through dials target by the SOCKS5 proxy at the address proxy (RFC 1928,
// without authentication).
func Through(proxy string, target netip.AddrPort) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", proxy)
		if err != nil {
			return nil, fmt.Errorf("dial the proxy: %w", err)
		}
		stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
		err = connect(c, target)
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("connect to %s through the proxy: %w", target, err)
		}
		return c, nil
	}
}

// connect asks a SOCKS5 proxy for a connection (RFC 1928, Sections 3 to 6).
func connect(c io.ReadWriter, target netip.AddrPort) error {
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	var b [4 + 255 + 3]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return err
	}
	if b[0] != 5 || b[1] != 0 {
		return fmt.Errorf("the proxy wants method %d of SOCKS%d", b[1], b[0])
	}
	if _, err := c.Write(appendAddress([]byte{5, 1, 0}, target)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:5]); err != nil {
		return err
	}
	if b[1] != 0 {
		return fmt.Errorf("the proxy answers %d", b[1])
	}
	rest := 0 // bytes of address and port that are still to come
	switch b[3] {
	case 1:
		rest = 3 + 2
	case 3:
		rest = int(b[4]) + 2
	case 4:
		rest = 15 + 2
	default:
		return fmt.Errorf("the proxy gives an address of type %d", b[3])
	}
	_, err := io.ReadFull(c, b[:rest])
	return err
}

// appendAddress appends type, address and port (RFC 1928, Section 5).
func appendAddress(b []byte, a netip.AddrPort) []byte {
	kind := byte(1)
	if a.Addr().Is6() {
		kind = 4
	}
	b = append(append(b, kind), a.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

var errNoConnect = errors.New("not a request to connect to a numeric address")

// accept does the proxy's half of SOCKS5 up to the request.
func accept(c io.ReadWriter) (netip.AddrPort, error) {
	var b [255]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return netip.AddrPort{}, err
	}
	if b[0] != 5 {
		return netip.AddrPort{}, errNoConnect
	}
	if _, err := io.ReadFull(c, b[:b[1]]); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := io.ReadFull(c, b[:4]); err != nil {
		return netip.AddrPort{}, err
	}
	n := map[byte]int{1: 4, 4: 16}[b[3]]
	if b[0] != 5 || b[1] != 1 || n == 0 {
		return netip.AddrPort{}, errNoConnect
	}
	if _, err := io.ReadFull(c, b[:n+2]); err != nil {
		return netip.AddrPort{}, err
	}
	a, _ := netip.AddrFromSlice(b[:n]) // 4 or 16 bytes
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[n:])), nil
}

// Relay is a SOCKS5 proxy that copies in user space and does nothing else: the
// limit for every tunnel that has a proxy in front. It ends with ctx and closes
// ln. The error is nil when ctx ended.
func Relay(ctx context.Context, ln net.Listener) error {
	return serve(ctx, ln, func(ctx context.Context, c net.Conn) {
		target, err := accept(c)
		if err != nil {
			return
		}
		up, err := new(net.Dialer).DialContext(ctx, "tcp", target.String())
		if err != nil {
			_, _ = c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0}) // connection refused
			return
		}
		defer up.Close()
		if _, err := c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
			return
		}
		join(c, up)
	})
}

// Forward accepts connections at ln until ctx ends and joins each with one to
// address, byte for byte.
func Forward(ctx context.Context, ln net.Listener, address string) error {
	return serve(ctx, ln, func(ctx context.Context, c net.Conn) {
		up, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return
		}
		defer up.Close()
		join(c, up)
	})
}

// join copies both ways until both have ended. A broken direction ends the other
// one; an ended one does not.
func join(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		relay(b, a)
	}()
	relay(a, b)
	<-done
}

// relay copies until the end or an error. It never lets the kernel splice: what
// is compared with it cannot either.
func relay(to, from net.Conn) {
	b := make([]byte, bufferSize)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err == io.EOF {
			if h, ok := to.(interface{ CloseWrite() error }); ok {
				_ = h.CloseWrite()
			}
			return
		}
		if err != nil {
			to.Close()
			return
		}
	}
}
