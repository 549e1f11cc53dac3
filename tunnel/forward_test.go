package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// A stack that forwards stands for every address: it takes TCP, UDP and echo
// requests, answers from the addresses that were meant, and lets a refusal be
// one.
func TestForward(t *testing.T) {
	type datagram struct {
		from, to netip.AddrPort
		payload  []byte
	}
	datagrams := make(chan datagram, 1)
	type echo struct {
		from, to netip.Addr
		message  []byte
	}
	echoes := make(chan echo, 1)
	refused := uint16(81)
	w := &wire{forward: &Forward{
		TCP: func(_, to netip.AddrPort, accept func() (net.Conn, error)) {
			if to.Port() == refused {
				return
			}
			c, err := accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, to.String()+" ")
			_, _ = io.Copy(c, c)
		},
		UDP:  func(from, to netip.AddrPort, b []byte) { datagrams <- datagram{from, to, b} },
		Echo: func(from, to netip.Addr, b []byte) { echoes <- echo{from, to, b} },
	}}
	connect(t, w)
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, far := range []netip.Addr{netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")} {
		at := netip.AddrPortFrom(far, 80)
		c, err := w.a.DialTCP(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != at.String()+" hello" {
			t.Errorf("%v: read %q, %v", far, b, err)
		}
		c.Close()
		if c, err := w.a.DialTCP(ctx, netip.AddrPortFrom(far, refused)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v: a refused connection gives %v, %v", far, c, err)
		}

		// Larger than the MTU, in both directions.
		u, err := w.a.DialUDP(at)
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("datagram"), 500)
		if _, err := u.Write(sent); err != nil {
			t.Fatal(err)
		}
		d := <-datagrams
		if d.to != at || !bytes.Equal(d.payload, sent) {
			t.Errorf("a datagram of %d bytes to %v, want %d to %v", len(d.payload), d.to, len(sent), at)
		}
		if err := w.b.SendUDP(d.to, d.from, d.payload); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5000)
		if n, err := u.Read(got); err != nil || !bytes.Equal(got[:n], sent) {
			t.Errorf("%d bytes came back, %v", n, err)
		}
		u.Close()
	}
	from := addrA4
	for _, to := range []netip.Addr{addrA6, addrB6} {
		w.b.Input([][]byte{echoRequest(from6(to), to)})
		e := <-echoes
		if e.to != to || icmpChecksum(e.from, e.to, e.message) != 0 {
			t.Errorf("an echo request to %v from %v", e.to, e.from)
		}
		if err := w.b.SendICMP(e.to, e.from, e.message); err != nil {
			t.Error(err)
		}
		damaged := echoRequest(from6(to), to)
		damaged[len(damaged)-1] ^= 1
		w.b.Input([][]byte{damaged})
		select {
		case e := <-echoes:
			t.Errorf("a damaged echo request was taken: %v", e)
		default:
		}
	}
	if err := w.b.SendICMP(from, addrA6, make([]byte, 8)); err == nil {
		t.Error("sent between families")
	}
}

func from6(not netip.Addr) netip.Addr {
	if not == addrA6 {
		return addrB6
	}
	return addrA6
}
