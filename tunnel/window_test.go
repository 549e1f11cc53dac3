package tunnel

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"testing"
	"time"
)

// A scriptedPeer speaks TCP with a stack from port 80 to port 12345, one packet
// after the other, and uses the window that it is given to the last byte.
type scriptedPeer struct {
	t       *testing.T
	ctx     context.Context
	s       *Stack
	v6      bool
	packets chan []byte // from the stack

	next, acked, edge uint32 // of what this peer sends
	got               uint32 // up to where it has received
	window            uint16 // as in the last packet
}

const windowScale = 7 // of the stack's, and the peer's

func newScriptedPeer(t *testing.T, ctx context.Context, v6, verify bool) *scriptedPeer {
	p := &scriptedPeer{t: t, ctx: ctx, v6: v6, packets: make(chan []byte, 1<<16), next: 0xffff0000}
	var err error
	p.s, err = New(Config{Addresses: []netip.Addr{addrB4, addrB6}, MTU: testMTU, VerifyChecksums: verify, Output: func(out Packet) {
		p.packets <- out.AppendTo(nil)
		out.Release()
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// segment makes a segment of the peer's.
func (p *scriptedPeer) segment(seq uint32, flags byte, options []byte, payload int) []byte {
	b := segment(p.v6, nil, options, flags, 0, make([]byte, payload))
	at := ipv4Header
	if p.v6 {
		at = ipv6Header
	}
	tcp := b[at:]
	binary.BigEndian.PutUint32(tcp[tcpSequence:], seq)
	binary.BigEndian.PutUint32(tcp[tcpAck:], p.got)
	binary.BigEndian.PutUint16(tcp[tcpWindow:], 0xffff)
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], 0)
	s := tcpSegment{ip: at}
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], ^s.sum(b))
	return b
}

func (p *scriptedPeer) send(seq uint32, flags byte, options []byte, payload int) {
	p.s.Input([][]byte{p.segment(seq, flags, options, payload)})
}

// receive takes the next packet of the stack, if there is one before the context
// ends.
func (p *scriptedPeer) receive() (payload int) {
	p.t.Helper()
	select {
	case b := <-p.packets:
		var s tcpSegment
		if s.parse(b) != plain {
			p.t.Fatalf("not TCP: % x", b)
		}
		tcp := b[s.ip:]
		p.acked, p.window = binary.BigEndian.Uint32(tcp[tcpAck:]), binary.BigEndian.Uint16(tcp[tcpWindow:])
		if s.flags&flagSYN != 0 {
			p.got = s.seq + 1
			return 0
		}
		if edge := p.acked + uint32(p.window)<<windowScale; int32(edge-p.edge) > 0 {
			p.edge = edge
		}
		payload = len(b) - s.header
		if s.seq == p.got {
			p.got += uint32(payload)
		}
		return payload
	case <-p.ctx.Done():
		p.t.Fatal("the stack sends nothing more")
		return 0
	}
}

// fill connects, and fills the stack's window but for some bytes, less than the
// unit in which the window is announced.
func (p *scriptedPeer) fill(rest uint32) {
	p.t.Helper()
	p.send(p.next, flagSYN, []byte{2, 4, 5, 0, 1, 3, 3, windowScale}, 0)
	p.next++
	p.receive()
	p.edge = p.next + 1<<15
	p.send(p.next, flagACK, nil, 0)
	for p.window != 0 || p.edge-p.next != rest || p.acked != p.next {
		if n := p.edge - p.next; n > rest {
			n = min(n-rest, 1000)
			p.send(p.next, flagACK, nil, int(n))
			p.next += n
		}
		p.receive()
	}
}

// What a peer acknowledges counts while our window is closed: alone with a
// sequence number behind the window, as when the peer sent all that it was once
// allowed to, and with data that finds no room.
func TestAcknowledgmentsAtClosedWindow(t *testing.T) {
	const rest, size = 64, 1 << 20
	for _, tt := range []struct {
		name             string
		v6, data, verify bool
	}{
		{"alone", false, false, false}, {"with data", false, true, false},
		{"alone, IPv6", true, false, false}, {"with data, IPv6", true, true, false},
		{"alone, verified", false, false, true}, {"with data, verified", false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			p := newScriptedPeer(t, ctx, tt.v6, tt.verify)
			defer p.s.Close()
			at := addrB4
			if tt.v6 {
				at = addrB6
			}
			l, err := p.s.ListenTCP(netip.AddrPortFrom(at, 12345))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			begin := p.next + 1
			p.fill(rest)
			c, err := l.Accept() // and never read from
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			p.send(p.next, flagACK, nil, rest) // finds no room
			if p.receive(); p.acked != p.next || p.window != 0 {
				t.Fatalf("the rest found room: acknowledged %d of %d, window %d", p.acked, p.next+rest, p.window)
			}
			first := p.got
			go func() { _, _ = c.Write(make([]byte, size)) }()
			for p.got != first+size {
				if p.receive() == 0 {
					continue
				}
				if tt.data {
					p.send(p.next, flagACK, nil, rest)
				} else {
					p.send(p.next+rest, flagACK, nil, 0)
				}
			}
			if p.acked != p.next {
				t.Error("data was taken that there was no room for")
			}
			// With room again, all is as ever.
			if _, err := io.ReadFull(c, make([]byte, p.next-begin)); err != nil {
				t.Fatal(err)
			}
			p.send(p.next, flagACK, nil, rest)
			for p.acked != p.next+rest {
				p.receive()
			}
			if _, err := io.ReadFull(c, make([]byte, rest)); err != nil {
				t.Fatal(err)
			}
			if p.s.link.windows.watched.Load() != 0 && p.window >= lowWindow {
				t.Error("a window that is open is still watched")
			}
		})
	}
}

// What in makes is well-formed, belongs before the window, and is made only of
// what is right; the packet itself is left alone.
func TestClosedWindowRewrites(t *testing.T) {
	p := &scriptedPeer{t: t, got: 99}
	for _, tt := range []struct {
		name           string
		segment        []byte
		damaged        bool
		before, packet bool // one is put before, or the packet is another
	}{
		{name: "behind the window", segment: p.segment(1064, flagACK, timestamps, 0), packet: true},
		{name: "at the window", segment: p.segment(1000, flagACK, timestamps, 0)},
		{name: "a question", segment: p.segment(999, flagACK, nil, 0)},
		{name: "data", segment: p.segment(1000, flagACK|flagPSH, timestamps, 64), before: true},
		{name: "the end", segment: p.segment(1064, flagACK|flagFIN, nil, 0), before: true},
		{name: "reset", segment: p.segment(1064, flagACK|flagRST, nil, 0)},
		{name: "damaged", segment: p.segment(1064, flagACK, nil, 0), damaged: true},
		{name: "damaged data", segment: p.segment(1000, flagACK, nil, 64), damaged: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s tcpSegment
			s.parse(tt.segment)
			w := windows{low: map[flow]window{s.flow: {next: 1000, closed: true}}}
			w.watched.Store(1)
			if tt.damaged {
				tt.segment[s.ip+tcpAck] ^= 1
			}
			was := string(tt.segment)
			before, packet := w.in(tt.segment, true)
			if string(tt.segment) != was {
				t.Error("the packet was changed")
			}
			if (before != nil) != tt.before || (string(packet) != was) != tt.packet {
				t.Fatalf("before it % x, in its place % x", before, packet)
			}
			made := before
			if tt.packet {
				made = packet
			}
			if made == nil {
				return
			}
			if err := checkPacket(made); err != nil {
				t.Error(err)
			}
			var m tcpSegment
			if m.parse(made) != plain || m.seq != 1000 || m.flags != flagACK || m.header != s.header || m.flow != s.flow || len(made) != m.header ||
				binary.BigEndian.Uint32(made[m.ip+tcpAck:]) != 99 {
				t.Errorf("made % x", made)
			}
			if again, _ := w.in(tt.segment, true); again != nil {
				t.Error("the same news twice")
			}
		})
	}
}
