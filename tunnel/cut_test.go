package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
)

// segment makes a TCP segment with correct checksums.
func segment(v6 bool, ipOptions, tcpOptions []byte, flags byte, urgent uint16, payload []byte) []byte {
	tcp := make([]byte, 20, 80)
	copy(tcp, []byte{0, 80, 0x30, 0x39, 0xff, 0xff, 0xff, 0x00, 1, 2, 3, 4}) // the sequence number wraps soon
	tcp = append(tcp, tcpOptions...)
	tcp[12], tcp[13] = byte(len(tcp)/4)<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 501)
	binary.BigEndian.PutUint16(tcp[18:], urgent)
	tcp = append(tcp, payload...)
	var ip, pseudo []byte
	if v6 {
		ip = []byte{0x6a, 0xbb, 0xcc, 0xdd, byte(len(tcp) >> 8), byte(len(tcp)), 6, 64}
		ip = append(append(ip, addrA6.AsSlice()...), addrB6.AsSlice()...)
		pseudo = append(pseudo, ip[8:40]...)
	} else {
		n := 20 + len(ipOptions)
		ip = []byte{0x40 | byte(n/4), 0x02, byte((n + len(tcp)) >> 8), byte(n + len(tcp)), 0xff, 0xff, 0x40, 0, 64, 6, 0, 0}
		ip = append(append(ip, addrA4.AsSlice()...), addrB4.AsSlice()...)
		ip = append(ip, ipOptions...)
		binary.BigEndian.PutUint16(ip[10:], ^uint16(onesSum(ip)))
		pseudo = append(pseudo, ip[12:20]...)
	}
	pseudo = append(pseudo, 0, 6, byte(len(tcp)>>8), byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(onesSum(append(pseudo, tcp...))))
	return append(ip, tcp...)
}

var timestamps = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}

func TestCut(t *testing.T) {
	payload := make([]byte, 4000)
	stream(3, 4000).Read(payload)
	for _, tt := range []struct {
		name      string
		v6        bool
		ip, tcp   []byte
		flags     byte
		urgent    uint16
		payload   int
		mtu       int
		wantFlags []byte // of each piece
	}{
		{"IPv4", false, nil, nil, flagACK | flagPSH, 0, 3000, 1360, []byte{flagACK, flagACK, flagACK | flagPSH}},
		{"IPv6", true, nil, nil, flagACK | flagPSH, 0, 3000, 1360, []byte{flagACK, flagACK, flagACK | flagPSH}},
		{"no byte over", false, nil, nil, flagACK, 0, 2640, 1360, []byte{flagACK, flagACK}},
		{"one byte over", false, nil, nil, flagACK, 0, 2641, 1360, []byte{flagACK, flagACK, flagACK}},
		{"timestamps", true, nil, timestamps, flagACK, 0, 2000, 1360, []byte{flagACK, flagACK}},
		{"IPv4 options", false, []byte{1, 1, 1, 1}, timestamps, flagACK, 0, 2000, 1360, []byte{flagACK, flagACK}},
		{"the last piece has the FIN", false, nil, nil, flagACK | flagPSH | flagFIN, 0, 2000, 1360, []byte{flagACK, flagACK | flagPSH | flagFIN}},
		{"the first piece has the CWR", true, nil, nil, flagACK | flagCWR | flagECE, 0, 3000, 1360,
			[]byte{flagACK | flagCWR | flagECE, flagACK | flagECE, flagACK | flagECE}},
		{"urgent up to the second piece", false, nil, nil, flagACK | flagURG, 1321, 3000, 1360,
			[]byte{flagACK | flagURG, flagACK | flagURG, flagACK}},
		{"odd sizes", false, nil, nil, flagACK, 0, 1001, 577, []byte{flagACK, flagACK}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pkt := segment(tt.v6, tt.ip, tt.tcp, tt.flags, tt.urgent, payload[:tt.payload])
			if err := checkPacket(pkt); err != nil {
				t.Fatalf("the test's own packet: %v", err)
			}
			pkt[len(pkt)-tt.payload-len(tt.tcp)-4]++ // the old checksum does not matter
			first := []byte("kept")
			buf, segs, err := Cut(pkt, tt.mtu, []byte("before"), [][]byte{first})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(buf, []byte("before")) || !bytes.Equal(segs[0], first) {
				t.Error("what was in dst and out is gone")
			}
			segs = segs[1:]
			if len(segs) != len(tt.wantFlags) {
				t.Fatalf("%d pieces, want %d", len(segs), len(tt.wantFlags))
			}
			hdr := len(pkt) - tt.payload
			ip := hdr - 20 - len(tt.tcp)
			var joined []byte
			for i, s := range segs {
				if err := checkPacket(s); err != nil {
					t.Errorf("piece %d: %v", i, err)
				}
				if i < len(segs)-1 && len(s) != tt.mtu || len(s) > tt.mtu {
					t.Errorf("piece %d has %d bytes", i, len(s))
				}
				if got := binary.BigEndian.Uint32(s[ip+4:]); got != 0xffffff00+uint32(len(joined)) {
					t.Errorf("piece %d: sequence number %#x", i, got)
				}
				if s[ip+13] != tt.wantFlags[i] {
					t.Errorf("piece %d: flags %08b, want %08b", i, s[ip+13], tt.wantFlags[i])
				}
				if got := binary.BigEndian.Uint16(s[ip+18:]); s[ip+13]&flagURG != 0 && int(got)+len(joined) != int(tt.urgent) ||
					s[ip+13]&flagURG == 0 && got != 0 {
					t.Errorf("piece %d: urgent pointer %d", i, got)
				}
				if got := binary.BigEndian.Uint16(s[4:]); !tt.v6 && got != 0xffff+uint16(i) {
					t.Errorf("piece %d: identification %#x", i, got)
				}
				// All else is the same: TOS or traffic class, TTL, addresses, ports, window, options.
				if !bytes.Equal(masked(s[:hdr], ip, tt.v6), masked(pkt[:hdr], ip, tt.v6)) {
					t.Errorf("piece %d: header % x", i, s[:hdr])
				}
				joined = append(joined, s[hdr:]...)
			}
			if !bytes.Equal(joined, payload[:tt.payload]) {
				t.Error("the payload differs")
			}
		})
	}
}

// masked clears in a copy of the headers what cutting may change.
func masked(h []byte, ip int, v6 bool) []byte {
	h = bytes.Clone(h)
	if v6 {
		clear(h[4:6])
	} else {
		clear(h[2:6])
		clear(h[10:12])
	}
	clear(h[ip+4 : ip+8])
	h[ip+13] = 0
	clear(h[ip+16 : ip+20])
	return h
}

func TestCutRefuses(t *testing.T) {
	big := make([]byte, 2000)
	good := func(v6 bool) []byte { return segment(v6, nil, nil, flagACK, 0, big) }
	set := func(b []byte, i int, v byte) []byte { b[i] = v; return b }
	for _, tt := range []struct {
		name string
		pkt  []byte
		mtu  int
		want error
	}{
		{"UDP", set(good(false), 9, 17), 1360, ErrTooBig},
		{"UDP in IPv6", set(good(true), 6, 17), 1360, ErrTooBig},
		{"an IPv6 extension header", set(good(true), 6, 0), 1360, ErrTooBig},
		{"a first fragment", set(good(false), 6, 0x20), 1360, ErrTooBig},
		{"a later fragment", set(good(false), 7, 1), 1360, ErrTooBig},
		{"SYN", segment(false, nil, nil, flagSYN, 0, big), 1360, ErrTooBig},
		{"RST", segment(true, nil, nil, flagRST, 0, big), 1360, ErrTooBig},
		{"no room for a byte", good(false), 40, ErrTooBig},
		{"the headers alone fit", segment(false, nil, timestamps, flagACK, 0, big), 52, ErrTooBig},
		{"an MTU below nothing", good(true), -1, ErrTooBig},
		{"version 5", set(good(false), 0, 0x55), 1360, ErrMalformed},
		{"a short IPv4 header", set(good(false), 0, 0x44), 1360, ErrMalformed},
		{"longer than it is", set(good(false), 2, 0xff), 1360, ErrMalformed},
		{"longer than it is in IPv6", set(good(true), 4, 0xff), 1360, ErrMalformed},
		{"shorter than its headers", set(set(good(false), 2, 0), 3, 39), 1360, ErrMalformed},
		{"a short TCP header", set(good(false), 32, 0x40), 1360, ErrMalformed},
		{"cut off", good(true)[:39], 38, ErrMalformed},
		{"cut off in TCP", good(false)[:39], 38, ErrMalformed},
	} {
		buf, segs, err := Cut(tt.pkt, tt.mtu, []byte{1}, [][]byte{{2}})
		if !errors.Is(err, tt.want) || len(buf) != 1 || len(segs) != 1 {
			t.Errorf("%s: got %d bytes, %d packets, %v", tt.name, len(buf), len(segs), err)
		}
	}

	// Within the MTU, as they are: also what is no IP packet.
	small := []byte("not IP at all")
	if buf, segs, err := Cut(small, len(small), nil, nil); err != nil || len(buf) != 0 || len(segs) != 1 || &segs[0][0] != &small[0] {
		t.Errorf("small: %v, %v, %v", buf, segs, err)
	}
	// Bytes behind the packet's end do not make it too big.
	padded := append(segment(false, nil, nil, flagACK, 0, big[:100]), big...)
	if _, segs, err := Cut(padded, 1360, nil, nil); err != nil || len(segs) != 1 || len(segs[0]) != 140 {
		t.Errorf("padded: %v", err)
	}
}

func TestCutAllocates(t *testing.T) {
	pkt := segment(false, nil, timestamps, flagACK, 0, make([]byte, 60000))
	buf, segs := make([]byte, 0, 1<<17), make([][]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := Cut(pkt, testMTU, buf, segs); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever comes in: no piece above the MTU, all of them correct, and nothing
// lost or added.
func FuzzCut(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{0, 1, 1300, 5000} {
			f.Add(segment(v6, nil, timestamps, flagACK|flagPSH|flagFIN|flagCWR, 0, make([]byte, n)), 1360)
			f.Add(segment(v6, nil, nil, flagACK|flagURG, 700, make([]byte, n)), 100)
		}
	}
	f.Add(segment(false, []byte{1, 1, 1, 1}, nil, flagACK, 0, make([]byte, 900)), 65)
	f.Add([]byte{0x60}, 0)
	f.Fuzz(func(t *testing.T, pkt []byte, mtu int) {
		before := bytes.Clone(pkt)
		_, segs, err := Cut(pkt, mtu, nil, nil)
		if !bytes.Equal(pkt, before) {
			t.Fatal("the packet was written to")
		}
		p := NewPacket(pkt[:min(len(pkt), maxPacket)])
		p.Destination()
		_, again, err2 := p.AppendCut(nil, mtu, nil)
		p.Release()
		if err != nil {
			if len(segs) > 0 {
				t.Fatal("an error and packets")
			}
			return
		}
		for _, s := range segs {
			if len(s) > mtu {
				t.Fatalf("%d bytes at an MTU of %d", len(s), mtu)
			}
		}
		if len(pkt) <= mtu {
			if len(segs) != 1 || !bytes.Equal(segs[0], pkt) {
				t.Fatal("a packet within the MTU was changed")
			}
			if len(pkt) <= maxPacket && (err2 != nil || len(again) != 1 || !bytes.Equal(again[0], pkt)) {
				t.Fatal("AppendCut changed a packet within the MTU")
			}
			return
		}
		if len(segs) == 1 {
			if !bytes.HasPrefix(pkt, segs[0]) {
				t.Fatal("a packet with bytes behind its end was changed")
			}
			return
		}
		l, err := parseLayout(pkt, len(pkt))
		if err != nil {
			t.Fatal(err)
		}
		var joined []byte
		for _, s := range segs {
			if err := checkPacket(s); err != nil {
				t.Fatal(err)
			}
			joined = append(joined, s[l.header():]...)
		}
		if !bytes.Equal(joined, pkt[l.header():l.total]) {
			t.Fatal("the payload differs")
		}
	})
}

func TestQueue(t *testing.T) {
	q := NewQueue(1000)
	ps := make([]Packet, 8)
	put := func(n int) bool {
		p := NewPacket(make([]byte, n))
		ok := q.Put(p)
		if !ok {
			p.Release()
		}
		return ok
	}
	if !put(5000) {
		t.Error("the empty queue refused a large packet")
	}
	if put(1) {
		t.Error("took a packet beyond the bound")
	}
	if n, err := q.Take(ps); n != 1 || err != nil || ps[0].Len() != 5000 {
		t.Errorf("took %d, %v", n, err)
	}
	ps[0].Release()
	if n, err := q.Take(nil); n != 0 || err != nil {
		t.Errorf("took %d, %v into nothing", n, err)
	}

	// Order, across the ring's growth and its end.
	next := 1
	for want := 1; want < 400; {
		for range 100 {
			if q.Bytes()+next%7+1 <= 1000 && put(next%7+1) {
				next++
			}
		}
		n, err := q.Take(ps)
		if n == 0 || err != nil {
			t.Fatal(n, err)
		}
		for _, p := range ps[:n] {
			if p.Len() != want%7+1 {
				t.Fatalf("packet %d has %d bytes", want, p.Len())
			}
			p.Release()
			want++
		}
	}
	put(10)
	dropped := q.Dropped()
	q.Close()
	q.Close()
	if put(1) || q.Dropped() != dropped+1 || q.Bytes() != 0 {
		t.Error("a closed queue took a packet")
	}
	if n, err := q.Take(ps); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("took %d, %v after Close", n, err)
	}
}

func TestQueueWaits(t *testing.T) {
	q := NewQueue(1 << 20)
	const producers, each = 4, 1000
	var all sync.WaitGroup
	for range producers {
		all.Go(func() {
			for range each {
				if p := NewPacket([]byte{1}); !q.Put(p) {
					t.Error("refused")
					p.Release()
				}
			}
		})
	}
	ps := make([]Packet, 16)
	for got := 0; got < producers*each; {
		n, err := q.Take(ps)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ps[:n] {
			p.Release()
		}
		got += n
	}
	all.Wait()
	waiting := make(chan error)
	go func() { _, err := q.Take(ps); waiting <- err }()
	q.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("woken by Close: %v", err)
	}
}

func TestPacket(t *testing.T) {
	var zero Packet
	zero.Release()
	if zero.Len() != 0 || zero.Destination().IsValid() || len(zero.AppendTo(nil)) != 0 {
		t.Error("the zero packet is not empty")
	}
	for _, b := range [][]byte{segment(false, nil, nil, flagACK, 0, []byte("data")), segment(true, nil, nil, flagACK, 0, nil), {1, 2}, {}} {
		p := NewPacket(b)
		q := p.Retain()
		p.Release()
		if got := q.AppendTo([]byte{9}); q.Len() != len(b) || !bytes.Equal(got, slices.Concat([]byte{9}, b)) {
			t.Errorf("got % x", got)
		}
		want := "invalid IP"
		if len(b) > 2 {
			want = map[byte]string{4: addrB4.String(), 6: addrB6.String()}[b[0]>>4]
		}
		if got := fmt.Sprint(q.Destination()); got != want {
			t.Errorf("destination %s, want %s", got, want)
		}
		q.Release()
	}
}
