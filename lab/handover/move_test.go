//go:build virtualtime

package handover

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client/warm"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/lab"
)

// messageSize is the size of the messages that the tests exchange, in bytes.
const messageSize = 700

// A duplex is a connection through the tunnel to a service at the target, with
// a message leaving each way every so often. Both directions are checked byte
// by byte.
type duplex struct {
	t               *testing.T
	near, far       net.Conn
	stop            chan struct{}
	tasks           sync.WaitGroup
	mu              sync.Mutex
	nearGot, farGot int
	nearAt, farAt   []time.Time // when messages arrived
}

func message(n int) []byte {
	sum := sha256.Sum256([]byte(fmt.Sprint(n)))
	return bytes.Repeat(sum[:], messageSize/32+1)[:messageSize]
}

// talk opens a connection and keeps it busy.
func (m *mobile) talk(every time.Duration) *duplex {
	t := m.w.t
	ln, err := m.w.target.ListenTCP(t.Context(), netip.MustParseAddrPort(targetAt))
	if err != nil {
		t.Fatal(err)
	}
	d := &duplex{t: t, stop: make(chan struct{})}
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
		}
		accepted <- c
	}()
	if d.near, err = m.client.Dial(t.Context(), "tcp", targetAt); err != nil {
		t.Fatal(err)
	}
	d.far = <-accepted
	ln.Close()
	d.tasks.Go(func() { d.write(d.near, every) })
	d.tasks.Go(func() { d.write(d.far, every) })
	d.tasks.Go(func() { d.read(d.near, &d.nearGot) })
	d.tasks.Go(func() { d.read(d.far, &d.farGot) })
	return d
}

func (d *duplex) write(c net.Conn, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-d.stop:
			c.(interface{ CloseWrite() error }).CloseWrite()
			return
		case <-tick.C:
		}
		if _, err := c.Write(message(n)); err != nil {
			d.t.Errorf("write message %d: %v", n, err)
			return
		}
	}
}

func (d *duplex) read(c net.Conn, got *int) {
	b := make([]byte, messageSize)
	for n := 0; ; n++ {
		if _, err := io.ReadFull(c, b); err != nil {
			if err != io.EOF {
				d.t.Errorf("read message %d: %v", n, err)
			}
			return
		}
		if !bytes.Equal(b, message(n)) {
			d.t.Errorf("message %d is altered", n)
			return
		}
		d.mu.Lock()
		*got++
		if c == d.near {
			d.nearAt = append(d.nearAt, time.Now())
		} else {
			d.farAt = append(d.farAt, time.Now())
		}
		d.mu.Unlock()
	}
}

// since tells when the first message arrived at either end after given times.
func (d *duplex) since(near, far time.Time) (nearAt, farAt time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := func(at []time.Time, after time.Time) time.Time {
		for _, a := range at {
			if a.After(after) {
				return a
			}
		}
		return time.Time{}
	}
	return first(d.nearAt, near), first(d.farAt, far)
}

// end stops the writers and waits until everything written has arrived.
func (d *duplex) end() (near, far int) {
	close(d.stop)
	d.tasks.Wait()
	d.near.Close()
	d.far.Close()
	return d.nearGot, d.farGot
}

// firstPacket gives the time of the first packet that the host sends from an
// address after now: the RREQ, or the SYN in front of it.
func (m *mobile) firstPacket(from netip.Addr) (at func() time.Time) {
	var mu sync.Mutex
	var first time.Time
	stop := m.w.in.Trace(func(e lab.Event) {
		mu.Lock()
		defer mu.Unlock()
		if first.IsZero() && e.Where == m.host.Name() && e.Fate == lab.Sent && e.Src.Addr() == from {
			first = e.Time
		}
	})
	return func() time.Time {
		stop()
		mu.Lock()
		defer mu.Unlock()
		return first
	}
}

// TestConnect counts the round trips of IKE until streams can be opened: two,
// and one more for keys that are safe from quantum computers.
func TestConnect(t *testing.T) {
	for _, c := range []struct {
		name   string
		choice ike.PostQuantum
		mtu    int
		rounds float64
		keys   string
	}{
		{"default", ike.PreferPostQuantum, 0, 3, "X25519+ML-KEM-768"},
		{"classical", ike.NeverPostQuantum, 0, 2, "X25519"},
		{"default, smallest MTU of IPv4", ike.PreferPostQuantum, 576, 3, "X25519+ML-KEM-768"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = 100 * time.Millisecond
				w := newWorld(t, r, func(w *world) {
					w.postQuantum = c.choice
					w.wifi.SetLink(lab.Link{Delay: r / 2, MTU: c.mtu})
				})
				defer w.close()
				start := lab.NewClock(r)
				m := w.join("laptop", 10)
				<-m.client.Ready()
				if got := start.Rounds(); got != c.rounds {
					t.Errorf("connected after %.2f round trips, want %v", got, c.rounds)
				}
				if got := m.client.Status().KeyExchange; got != c.keys {
					t.Errorf("keys from %s, want %s", got, c.keys)
				}
				if got := w.server.Status().Clients[0].KeyExchange; got != c.keys {
					t.Errorf("at the server keys from %s, want %s", got, c.keys)
				}
			})
		})
	}
}

// TestMoveWhereUDPPasses moves from one NAT to another. The old network ends
// at the moment the new one appears.
func TestMoveWhereUDPPasses(t *testing.T) {
	for _, r := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond} {
		t.Run(r.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, r)
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 20)
				settle()
				before := m.client.Status()
				if before.Path == nil || before.Path.Encapsulation != "udp" || before.Path.Verdict != "nat" {
					t.Fatalf("path before the move: %+v", before.Path)
				}

				moved := time.Now()
				at := m.host.Move("if0", w.cell)[0]
				first := m.firstPacket(at)
				settle()
				rreq := first()

				after := m.client.Status()
				if after.Path == nil || after.Path.Encapsulation != "udp" || after.Path.Verdict != "napt" {
					t.Fatalf("path after the move: %+v", after.Path)
				}
				if rreq.IsZero() {
					t.Fatal("no RREQ has left")
				}
				// What the client sent before the move is on its way to the
				// server for half a round trip yet; what the server sent is lost.
				nearAt, farAt := d.since(moved, moved.Add(r/2))
				if nearAt.IsZero() || farAt.IsZero() {
					t.Fatalf("messages after the move: near %v, far %v", nearAt, farAt)
				}
				out, in := lab.Rounds(farAt.Sub(rreq), r)-0.5, lab.Rounds(nearAt.Sub(rreq), r)
				t.Logf("after the RREQ left: client data again at %.2f R, server data arrives at %.2f R", out, in)
				if out > 0.1 {
					t.Errorf("the client sends data again %.2f round trips after the RREQ left, want with the next message", out)
				}
				if in > 1.0 {
					t.Errorf("server data arrives %.2f round trips after the RREQ left, want 1.0 or sooner", in)
				}
				if n := after.IKESent + after.IKEReceived - before.IKESent - before.IKEReceived; n != 0 {
					t.Errorf("%d IKE messages in the move, want none", n)
				}
				last := after.Registrations[len(after.Registrations)-1]
				if got := lab.Rounds(time.Duration(last.DurationMs*float64(time.Millisecond)), r); last.Trigger != "address" || got != 1 {
					t.Errorf("registration by %s took %.2f round trips, want address and 1", last.Trigger, got)
				}
				near, far := d.end()
				if near == 0 || far == 0 {
					t.Errorf("messages received: %d near, %d far", near, far)
				}
			})
		})
	}
}

// TestMoves walks through networks that pass less and less, and back.
func TestMoves(t *testing.T) {
	const r = 100 * time.Millisecond
	for _, step := range []struct {
		name          string
		firewall      lab.Firewall
		fastOpen      bool
		encapsulation string
		out, in       float64 // round trips until data moves again, DESIGN.md, Section 7
	}{
		{"udp", nil, false, "udp", 0, 1},
		{"only tcp", lab.OnlyTCP, false, "tcp", 1, 2},
		{"only tls", lab.OnlyTLS443, false, "websocket", 3, 3},
		// The handshake carries the registration and no data, or the ClientHello.
		{"only tcp, fast open", lab.OnlyTCP, true, "tcp", 1, 1},
		{"only tls, fast open", lab.OnlyTLS443, true, "websocket", 2, 2},
	} {
		t.Run(step.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, r)
				defer w.close()
				w.in.SetFastOpen(step.fastOpen)
				m := w.join("laptop", 10)
				d := m.talk(r / 10)
				settle()
				before := m.client.Status()

				w.cell.SetFirewall(step.firewall)
				moved := time.Now()
				m.host.Move("if0", w.cell)
				settle()
				after := m.client.Status()
				if after.Path == nil || after.Path.Encapsulation != step.encapsulation || after.Path.Verdict != "napt" {
					t.Fatalf("path: %+v", after.Path)
				}
				nearAt, farAt := d.since(moved, moved.Add(r/2))
				out, in := lab.Rounds(farAt.Sub(moved), r)-0.5, lab.Rounds(nearAt.Sub(moved), r)
				t.Logf("client data again at %.2f R, server data arrives at %.2f R", out, in)
				// Messages are a tenth of a round trip apart.
				if out > step.out+0.1 || in > step.in+0.1 {
					t.Errorf("want %.1f and %.1f", step.out, step.in)
				}
				if n := after.IKESent + after.IKEReceived - before.IKESent - before.IKEReceived; n != 0 {
					t.Errorf("%d IKE messages in the move, want none", n)
				}
				last := after.Registrations[len(after.Registrations)-1]
				if got := lab.Rounds(time.Duration(last.DurationMs*float64(time.Millisecond)), r); got > step.in {
					t.Errorf("the registration took %.2f round trips, want %.1f", got, step.in)
				}

				w.cell.SetFirewall(nil)
				m.host.Move("if0", w.wifi)
				settle()
				if back := m.client.Status(); back.Path == nil || back.Path.Encapsulation != "udp" || back.Path.Verdict != "nat" {
					t.Errorf("path after the way back: %+v", back.Path)
				}
				d.end()
			})
		})
	}
}

// TestUDPBlockedInPlace has the network lose all UDP from one moment on while
// nothing else changes: only unanswered data can tell.
func TestUDPBlockedInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		d := m.talk(r / 10)
		settle()
		w.wifi.SetFirewall(lab.OnlyTCP)
		start := time.Now()
		for m.client.Status().Path.Encapsulation == "udp" {
			time.Sleep(r / 10)
			if time.Since(start) > time.Minute {
				t.Fatal("still on UDP after a minute")
			}
		}
		t.Logf("moved to %s after %v", m.client.Status().Path.Encapsulation, time.Since(start))
		// 300 ms of silence, two round trips of TCP, and the sampling.
		if got := time.Since(start); got > 300*time.Millisecond+3*r {
			t.Errorf("the block was noticed and left after %v", got)
		}
		settle()
		d.end()
	})
}

// TestIdleLinkIsQuiet has nothing sent on an idle link but NAT keepalives and what tells
// how seldom they are needed.
func TestIdleLinkIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 50*time.Millisecond)
		defer w.close()
		m := w.join("laptop", 10)
		<-m.client.Ready()
		// The connections that were ready for streams are let go first.
		time.Sleep(warm.IdleAfter + time.Minute)
		n := 0
		start := time.Now()
		stop := w.in.Trace(func(e lab.Event) {
			if e.Fate == lab.Sent {
				t.Log(e.Time.Sub(start), e)
				if n++; e.Size > 48 {
					t.Error("that is no keepalive")
				}
			}
		})
		time.Sleep(10 * time.Minute)
		stop()
		if n > 20 {
			t.Errorf("%d packets on an idle link in ten minutes", n)
		}
	})
}

// TestTwoClients has one client move while the other one's link must not change.
func TestTwoClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 40*time.Millisecond)
		defer w.close()
		still := w.join("still", 11)
		d := still.talk(10 * time.Millisecond)
		moving := w.join("moving", 12)
		settle()
		before := still.client.Status()
		for range 3 {
			moving.host.Move("if0", w.cell)
			settle()
			moving.host.Move("if0", w.wifi)
			settle()
		}
		after := still.client.Status()
		if len(after.Registrations) != len(before.Registrations) || *after.Path != *before.Path {
			t.Errorf("the other client noticed: %+v then %+v", before.Path, after.Path)
		}
		if n := len(moving.client.Status().Registrations); n < 7 {
			t.Errorf("the moving client has %d registrations, want 7", n)
		}
		d.end()
	})
}
