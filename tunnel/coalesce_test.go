package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// coalesced gives what a batch becomes.
func coalesced(pkts [][]byte) (out [][]byte) {
	c := new(coalescer)
	c.input = func(_ tcpip.NetworkProtocolNumber, pb *stack.PacketBuffer) {
		out = append(out, Packet{pb: pb}.AppendTo(nil))
		pb.DecRef()
	}
	for _, b := range pkts {
		c.add(b)
	}
	c.flush()
	return out
}

// cutUp gives the pieces of a segment with n bytes of payload.
func cutUp(t testing.TB, v6 bool, flags byte, n int) [][]byte {
	t.Helper()
	payload := make([]byte, n)
	stream(9, int64(n)).Read(payload)
	_, segs, err := Cut(segment(v6, nil, timestamps, flags, 0, payload), testMTU, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return segs
}

func TestCoalesce(t *testing.T) {
	const n = 5 // pieces
	set := func(i, at int, value byte) func([][]byte) [][]byte {
		return func(p [][]byte) [][]byte { p[i][at] = value; return p }
	}
	for _, tt := range []struct {
		name   string
		v6     bool
		flags  byte
		change func([][]byte) [][]byte
		want   int // packets
	}{
		{"IPv4", false, flagACK | flagPSH, nil, 1},
		{"IPv6", true, flagACK | flagPSH, nil, 1},
		{"FIN at the end", false, flagACK | flagFIN, nil, 1},
		{"CWR at the start", true, flagACK | flagCWR, nil, 2},
		{"a gap", false, flagACK, func(p [][]byte) [][]byte { return slices.Delete(p, 2, 3) }, 2},
		{"out of order", false, flagACK, func(p [][]byte) [][]byte { p[1], p[2] = p[2], p[1]; return p }, 4},
		{"twice", true, flagACK, func(p [][]byte) [][]byte { return append(p, p[n-1]) }, 2},
		{"PSH in the middle", false, flagACK, set(2, 33, flagACK|flagPSH), 1},
		{"SYN in the middle", false, flagACK, set(2, 33, flagACK|flagSYN), 3},
		{"RST in the middle", false, flagACK, set(2, 33, flagACK|flagRST), 3},
		{"URG in the middle", false, flagACK, set(2, 33, flagACK|flagURG), 3},
		{"FIN in the middle", false, flagACK, set(2, 33, flagACK|flagFIN), 2},
		{"no ACK in the middle", false, flagACK, set(2, 33, 0), 3},
		{"congestion experienced", false, flagACK, set(2, 1, 3), 3},
		{"another hop limit", true, flagACK, set(2, 7, 9), 3},
		{"another flow label", true, flagACK, set(2, 3, 9), 3},
		{"DF cleared", false, flagACK, set(2, 6, 0), 3},
		{"another acknowledgment", false, flagACK, set(2, 31, 9), 3},
		{"another window", false, flagACK, set(2, 35, 9), 3},
		{"another timestamp", false, flagACK, set(2, 47, 99), 3},
		{"a reserved bit", false, flagACK, set(2, 32, 0x81), 3},
		{"another port", false, flagACK, set(2, 23, 9), 3},
		{"another address", true, flagACK, set(2, 23, 9), 3},
		{"a fragment", false, flagACK, set(2, 6, 0x20), 3},
		{"a wrong length", true, flagACK, set(2, 5, 9), 3},
		{"UDP between", false, flagACK, func(p [][]byte) [][]byte {
			return slices.Insert(p, 2, []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
		}, 2},
		{"without payload", false, flagACK, func(p [][]byte) [][]byte {
			return slices.Insert(p, 2, segment(false, nil, nil, flagACK, 0, nil))
		}, 3},
	} {
		room := testMTU - 52
		if tt.v6 {
			room -= 20
		}
		pkts := cutUp(t, tt.v6, tt.flags, n*room)
		if len(pkts) != n {
			t.Fatalf("%s: cut into %d", tt.name, len(pkts))
		}
		if tt.change != nil {
			pkts = tt.change(pkts)
		}
		got := coalesced(pkts)
		if len(got) != tt.want {
			t.Errorf("%s: %d packets, want %d", tt.name, len(got), tt.want)
		}
		sameContents(t, pkts, got)
	}
}

// The largest run has the largest length that IPv4 can tell, and no more.
func TestCoalesceIsBounded(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		a, b := cutUp(t, v6, flagACK, 64000), cutUp(t, v6, flagACK, 64000)
		for _, p := range b { // goes on where a ends
			ip := 20
			if v6 {
				ip = 40
			}
			seq := p[ip+tcpSequence:]
			binary.BigEndian.PutUint32(seq, binary.BigEndian.Uint32(seq)+64000)
		}
		got := coalesced(append(a, b...))
		if len(got) != 2 || len(got[0]) > maxPacket || len(got[0]) <= maxPacket-testMTU {
			t.Errorf("%d packets, the first of %d bytes", len(got), len(got[0]))
		}
		sameContents(t, append(a, b...), got)
	}
}

// contents tells what packets carry, flow by flow: stretches of the stream with
// the header that goes with them, whatever packets they were divided into.
// A packet that belongs to no flow is a flow of its own.
func contents(pkts [][]byte) map[string][]string {
	type stretch struct {
		header string
		next   uint32
		data   []byte
	}
	flows := make(map[string][]string)
	open := make(map[string]*stretch)
	end := func(key string) {
		if s := open[key]; s != nil {
			flows[key] = append(flows[key], fmt.Sprintf("%x up to %d: %x", s.header, s.next, s.data))
			delete(open, key)
		}
	}
	for _, b := range pkts {
		s := new(tcpSegment)
		if s.parse(b) != plain {
			key := fmt.Sprintf("%x", b)
			flows[key] = append(flows[key], "")
			continue
		}
		h, key := bytes.Clone(b[:s.header]), fmt.Sprint(s.flow)
		clear(h[s.ip+tcpSequence:][:4])
		clear(h[s.ip+tcpChecksum:][:2])
		if s.flags&flagURG == 0 {
			clear(h[s.ip+tcpUrgent:][:2]) // says nothing
		}
		if s.flow.v6 {
			clear(h[ipv6Length:][:2])
		} else {
			for _, at := range []int{ipv4Length, ipv4ID, ipv4Checksum} {
				clear(h[at:][:2])
			}
		}
		data := b[s.header:]
		special := s.flags&^(flagPSH|flagFIN|flagECE|flagCWR) != flagACK || len(data) == 0
		if special { // never joined to another
			end(key)
			flows[key] = append(flows[key], fmt.Sprintf("%x", b))
			continue
		}
		h[s.ip+tcpFlags] &^= flagPSH | flagFIN
		if o := open[key]; o == nil || o.next != s.seq || o.header != string(h) {
			end(key)
			open[key] = &stretch{header: string(h), next: s.seq}
		}
		o := open[key]
		o.data = append(o.data, data...)
		o.next += uint32(len(data))
		if s.flags&flagFIN != 0 {
			o.header += "FIN"
			end(key)
		}
	}
	for key := range open {
		end(key)
	}
	return flows
}

func sameContents(t *testing.T, before, after [][]byte) {
	t.Helper()
	a, b := contents(before), contents(after)
	for key := range a {
		if !slices.Equal(a[key], b[key]) {
			t.Fatalf("flow %s:\nwas   %.300q\nnow   %.300q", key, a[key], b[key])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("%d flows became %d", len(a), len(b))
	}
	for _, p := range after {
		if len(p) > maxPacket {
			t.Fatalf("a packet of %d bytes", len(p))
		}
	}
}

// Flows that are mixed, in bits or with losses, come out as they went in.
func TestCoalesceKeepsContents(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 7))
		flows := make([][][]byte, 1+random.IntN(2*maxRuns))
		for i := range flows {
			flows[i] = cutUp(t, random.IntN(2) == 0, flagACK|byte(random.IntN(256)&(flagPSH|flagFIN|flagCWR|flagECE)), 2000+random.IntN(20000))
			for _, p := range flows[i] {
				ip := 20
				if p[0]>>4 == 6 {
					ip = 40
				}
				p[ip+1] = byte(i) // its port
			}
		}
		var pkts [][]byte
		for len(flows) > 0 {
			i := random.IntN(len(flows))
			n := min(1+random.IntN(8), len(flows[i]))
			for _, p := range flows[i][:n] {
				switch random.IntN(40) {
				case 0: // lost
				case 1: // changed
					p[random.IntN(len(p))] ^= 1 << random.IntN(8)
					fallthrough
				default:
					pkts = append(pkts, p)
				}
			}
			if flows[i] = flows[i][n:]; len(flows[i]) == 0 {
				flows = slices.Delete(flows, i, i+1)
			}
		}
		sameContents(t, pkts, coalesced(pkts))
	}
}

// Whatever comes in: no panic, nothing lost, added or out of order. The input
// is a train of packets as in FuzzInput.
func FuzzCoalesce(f *testing.F) {
	train := func(pkts [][]byte) []byte {
		var b []byte
		for _, p := range pkts {
			b = append(append(b, byte(len(p)>>8), byte(len(p))), p...)
		}
		return b
	}
	a, b := cutUp(f, false, flagACK|flagPSH, 4000), cutUp(f, true, flagACK|flagFIN, 4000)
	f.Add(train(a))
	f.Add(train(b))
	f.Add(train([][]byte{a[0], b[0], a[1], {0x45}, b[1], a[2], segment(false, []byte{1, 1, 1, 0}, nil, flagACK, 0, nil), a[2]}))
	f.Add(train([][]byte{{0x60}, {0x4f}, echoRequest(addrA6, addrB6), a[0]}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var pkts [][]byte
		for len(b) >= 2 {
			n := min(int(b[0])<<8|int(b[1]), len(b)-2)
			if n > 0 {
				pkts = append(pkts, b[2:2+n:2+n])
			}
			b = b[2+n:]
		}
		before := bytes.Join(pkts, nil)
		out := coalesced(pkts)
		if !bytes.Equal(before, bytes.Join(pkts, nil)) {
			t.Fatal("a packet was written to")
		}
		sameContents(t, pkts, out)
	})
}

func BenchmarkCoalesce(b *testing.B) {
	for _, flows := range []int{1, 4} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			var pkts [][]byte
			for i := range flows {
				segs := cutUp(b, false, flagACK, 59000/flows)
				for _, p := range segs {
					p[21] = byte(i)
				}
				pkts = append(pkts, segs...)
			}
			c := new(coalescer)
			c.input = func(_ tcpip.NetworkProtocolNumber, pb *stack.PacketBuffer) { pb.DecRef() }
			b.SetBytes(59000)
			b.ReportAllocs()
			for b.Loop() {
				for _, p := range pkts {
					c.add(p)
				}
				c.flush()
			}
		})
	}
}
