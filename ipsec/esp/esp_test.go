package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var algorithms = []Algorithm{AES128GCM, AES256GCM, ChaCha20Poly1305}

const testSPI = 0xc0ffee01

func keymat(a Algorithm) []byte {
	b := make([]byte, a.KeyLen())
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func pair(t testing.TB, a Algorithm, esn bool, window int) (*Outbound, *Inbound) {
	t.Helper()
	out, err := NewOutbound(testSPI, a, keymat(a), esn)
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewInbound(testSPI, a, keymat(a), esn, window)
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

// packet4 and packet6 make inner packets of n bytes with recognisable contents.
func packet4(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	return b
}

func packet6(n int) []byte {
	b := packet4(n)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(n-40))
	return b
}

func seal(t testing.TB, o *Outbound, inner []byte, padTo int) []byte {
	t.Helper()
	p, err := o.Seal(nil, inner, padTo)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSealOpen(t *testing.T) {
	for _, alg := range algorithms {
		for _, esn := range []bool{false, true} {
			out, in := pair(t, alg, esn, 0)
			t.Run(fmt.Sprintf("%v esn=%v", alg, esn), func(t *testing.T) {
				for _, tt := range []struct {
					inner []byte
					padTo int
					want  int
				}{
					{packet4(20), 0, 56},
					{packet4(21), 0, 56},
					{packet4(22), 0, 56},
					{packet4(23), 0, 60},
					{packet6(40), 0, 76},
					{packet6(41), 0, 76},
					{packet4(65535), 0, 65572},
					{packet4(20), 1400, 1400},
					{packet4(21), 1403, 1400}, // rounded down to a multiple of 4
					{packet6(77), 1200, 1200},
					{packet4(1000), 500, 1036}, // longer than asked for
					{packet4(20), 1 << 20, 65532},
					{nil, 0, 36},
					{nil, 100, 100},
					{packet4(100), -5, 136},
				} {
					prefix := []byte("prefix")
					buf, err := out.Seal(prefix, tt.inner, tt.padTo)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.HasPrefix(buf, prefix) {
						t.Errorf("%d bytes padded to %d: Seal wrote over what stood before", len(tt.inner), tt.padTo)
					}
					pkt := buf[len(prefix):]
					if len(pkt) != tt.want {
						t.Errorf("%d bytes padded to %d become %d bytes, want %d", len(tt.inner), tt.padTo, len(pkt), tt.want)
					}
					if tt.padTo == 0 && len(pkt)-len(tt.inner) > MaxOverhead {
						t.Errorf("%d bytes become %d, more than MaxOverhead", len(tt.inner), len(pkt))
					}
					if spi, ok := SPI(pkt); !ok || spi != testSPI {
						t.Errorf("SPI gives %x, %v", spi, ok)
					}
					if low, ok := SequenceLow(pkt); !ok || uint64(low) != out.Sequence() {
						t.Errorf("SequenceLow gives %d, %v, want %d", low, ok, out.Sequence())
					}
					inner, err := in.Open(pkt)
					if err != nil || !bytes.Equal(inner, tt.inner) {
						t.Errorf("%d bytes padded to %d: Open gives %d bytes, %v", len(tt.inner), tt.padTo, len(inner), err)
					}
					if len(inner) > 0 && &inner[0] != &pkt[headerLen] {
						t.Error("Open does not decrypt in place")
					}
				}
			})
		}
	}
}

func TestEveryAlteredByteIsNoticed(t *testing.T) {
	for _, alg := range algorithms {
		for _, esn := range []bool{false, true} {
			out, in := pair(t, alg, esn, 0)
			pkt := seal(t, out, packet4(30), 0)
			for i := range pkt {
				bad := bytes.Clone(pkt)
				bad[i] ^= 0x40
				want := ErrAuth
				if i < 4 {
					want = ErrMalformed // another SPI
				}
				if _, err := in.Open(bad); !errors.Is(err, want) {
					t.Errorf("%v: byte %d altered: %v, want %v", alg, i, err, want)
				}
			}
			for n := range pkt {
				if _, err := in.Open(bytes.Clone(pkt[:n])); err == nil {
					t.Errorf("%v: %d of %d bytes open", alg, n, len(pkt))
				}
			}
			// Nothing of that moved the window.
			if s := in.State(); s.Highest != 0 {
				t.Errorf("%v: forgeries moved the window to %d", alg, s.Highest)
			}
			if _, err := in.Open(pkt); err != nil {
				t.Errorf("%v: the true packet: %v", alg, err)
			}
		}
	}
}

// A packet that authenticates but is wrong inside comes from a broken peer.
func TestMalformedInside(t *testing.T) {
	good := packet4(28)
	long := bytes.Clone(good)
	binary.BigEndian.PutUint16(long[2:], 29)
	short := bytes.Clone(good)
	binary.BigEndian.PutUint16(short[2:], 19)
	ihl := bytes.Clone(good)
	ihl[0] = 0x44
	for _, tt := range []struct {
		name    string
		text    []byte
		trailer []byte
		want    error
	}{
		{"right", good, []byte{1, 2, 2, 4}, nil},
		{"no padding at all, as no boundary binds the receiver", good, []byte{0, 4}, nil},
		{"255 bytes of padding", good, append(series(255), 255, 4), nil},
		{"padding counts from 0", good, []byte{0, 1, 2, 4}, ErrMalformed},
		{"padding with a gap", good, []byte{1, 3, 2, 4}, ErrMalformed},
		{"padding longer than the packet", nil, []byte{1, 2, 3, 4}, ErrMalformed},
		{"IPv6 said, IPv4 there", good, []byte{1, 2, 2, 41}, ErrMalformed},
		{"TCP: transport mode", good, []byte{1, 2, 2, 6}, ErrMalformed},
		{"total length beyond the end", long, []byte{1, 2, 2, 4}, ErrMalformed},
		{"total length within the header", short, []byte{1, 2, 2, 4}, ErrMalformed},
		{"header length of 16", ihl, []byte{1, 2, 2, 4}, ErrMalformed},
		{"nothing where an IPv4 packet should be", nil, []byte{1, 2, 2, 4}, ErrMalformed},
		{"half an IPv6 header", packet6(40)[:36], []byte{1, 2, 2, 41}, ErrMalformed},
		{"a dummy packet with random contents", []byte{9, 8, 7, 6}, []byte{1, 2, 2, 59}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, in := pair(t, AES128GCM, false, 0)
			pkt := forge(out, append(bytes.Clone(tt.text), tt.trailer...), 1)
			inner, err := in.Open(pkt)
			if !errors.Is(err, tt.want) {
				t.Errorf("Open: %v, want %v", err, tt.want)
			}
			if err == nil && tt.trailer[len(tt.trailer)-1] == protoIPv4 && !bytes.Equal(inner, good) {
				t.Errorf("Open gives %x", inner)
			}
			// It is authentic, so it counts for the window either way.
			if s := in.State(); s.Highest != 1 {
				t.Errorf("Highest is %d, want 1", s.Highest)
			}
		})
	}
}

func series(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

// forge seals any plaintext with o's key.
func forge(o *Outbound, text []byte, seq uint64) []byte {
	pkt := binary.BigEndian.AppendUint32(nil, o.spi)
	pkt = binary.BigEndian.AppendUint32(pkt, uint32(seq))
	pkt = binary.BigEndian.AppendUint64(pkt, seq)
	s := new(scratch)
	return o.key.aead.Seal(pkt, s.nonceOf(o.key.salt, pkt[8:]), text, s.associated(o.spi, seq, o.esn))
}

func TestSealRefusesMalformedInner(t *testing.T) {
	out, _ := pair(t, AES128GCM, true, 0)
	long := append(packet4(40), 0)
	for _, inner := range [][]byte{{0x45}, packet4(20)[:19], long, append([]byte{0x50}, packet4(40)[1:]...), packet6(40)[:39]} {
		if b, err := out.Seal([]byte("x"), inner, 0); !errors.Is(err, ErrMalformed) || string(b) != "x" {
			t.Errorf("Seal(%x) gives %x, %v", inner, b, err)
		}
		b, pkts, err := out.SealBatch(nil, [][]byte{packet4(20), inner}, nil)
		if !errors.Is(err, ErrMalformed) || len(b) > 0 || len(pkts) > 0 {
			t.Errorf("SealBatch with %x gives %d packets, %v", inner, len(pkts), err)
		}
	}
	if n := out.Sequence(); n != 0 {
		t.Errorf("refused packets took %d sequence numbers", n)
	}
}

func TestExhausted(t *testing.T) {
	for _, tt := range []struct {
		esn  bool
		last uint64
	}{{false, math.MaxUint32}, {true, math.MaxUint64}} {
		out, _ := pair(t, ChaCha20Poly1305, tt.esn, 0)
		out.last.Store(tt.last - 3)
		seal(t, out, packet4(20), 0)
		_, pkts, err := out.SealBatch(nil, [][]byte{packet4(20), packet4(24), packet4(28)}, nil)
		if !errors.Is(err, ErrExhausted) || len(pkts) != 2 {
			t.Errorf("esn=%v: with two numbers left SealBatch gives %d packets, %v", tt.esn, len(pkts), err)
		}
		for range 3 { // and stays so
			if _, err := out.Seal(nil, packet4(20), 0); !errors.Is(err, ErrExhausted) {
				t.Errorf("esn=%v: past the last number: %v, want ErrExhausted", tt.esn, err)
			}
		}
		if out.Sequence() != tt.last {
			t.Errorf("esn=%v: Sequence is %d, want %d", tt.esn, out.Sequence(), tt.last)
		}
	}
}

// The receiver follows across the end of the lower half, late packets included.
func TestExtendedNumbersAcrossTheWrap(t *testing.T) {
	out, in := pair(t, AES256GCM, true, 128)
	const wrap = 1 << 32
	for _, step := range []struct {
		seq  uint64
		want error
	}{
		{wrap - 2, nil}, // as if all before it were lost: the upper half is 0
		{wrap + 1, nil},
		{wrap - 1, nil}, // late, from below the wrap
		{wrap - 1, ErrReplay},
		{wrap, nil},
		{wrap - 2, ErrReplay},
		{wrap + 100, nil},
		{wrap - 27, nil},       // the window's bottom
		{wrap - 28, ErrAuth},   // below it: taken for 2^32 later
		{2*wrap + 50, ErrAuth}, // 2^32 and more above it: can't be told either
		{2*wrap - 50, nil},
		{2*wrap + 50, nil},
		{2*wrap - 49, nil},
		{2*wrap + 51, nil},
	} {
		out.last.Store(step.seq - 1)
		if _, err := in.Open(seal(t, out, packet4(20), 0)); !errors.Is(err, step.want) {
			t.Errorf("%#x: %v, want %v", step.seq, err, step.want)
		}
	}

	// At the very end nothing wraps to the start.
	out.last.Store(math.MaxUint64 - 1)
	in.window.highest = math.MaxUint64 - 10
	if _, err := in.Open(seal(t, out, packet4(20), 0)); err != nil {
		t.Errorf("the last sequence number: %v", err)
	}
	out.last.Store(4)
	if _, err := in.Open(seal(t, out, packet4(20), 0)); !errors.Is(err, ErrReplay) {
		t.Errorf("past the end: %v, want ErrReplay", err)
	}
}

func TestESNMustAgree(t *testing.T) {
	out, _ := pair(t, AES128GCM, true, 0)
	_, in := pair(t, AES128GCM, false, 0)
	if _, err := in.Open(seal(t, out, packet4(20), 0)); !errors.Is(err, ErrAuth) {
		t.Errorf("an extended number at an SA without: %v, want ErrAuth", err)
	}
}

func TestBatches(t *testing.T) {
	out, in := pair(t, AES128GCM, true, 0)
	inner := [][]byte{packet4(100), packet6(1400), nil, packet4(20), packet4(65535)}
	buf, pkts, err := out.SealBatch([]byte("x"), inner, make([][]byte, 0, 1))
	if err != nil || len(pkts) != len(inner) || out.Sequence() != 5 {
		t.Fatalf("SealBatch gives %d packets up to number %d, %v", len(pkts), out.Sequence(), err)
	}
	if !bytes.Equal(buf, bytes.Join(append([][]byte{[]byte("x")}, pkts...), nil)) {
		t.Error("the packets do not stand one behind the other in the buffer")
	}
	bad := bytes.Clone(pkts[0])
	bad[20]++
	again := bytes.Clone(pkts[3])
	opened, notes, dropped := in.OpenBatch([][]byte{bad, pkts[4], pkts[3], pkts[2], pkts[1], pkts[0], again, {1}}, nil, nil)
	want := [][]byte{inner[4], inner[3], inner[1], inner[0]}
	if len(notes) > 0 {
		t.Errorf("an empty dummy packet holds %x", notes)
	}
	if len(opened) != len(want) || dropped != (Drops{Replayed: 1, Damaged: 2}) {
		t.Fatalf("OpenBatch gives %d packets and drops %+v, want %d and 3", len(opened), dropped, len(want))
	}
	for i := range want {
		if !bytes.Equal(opened[i], want[i]) {
			t.Errorf("packet %d differs", i)
		}
	}
	stats := Stats{Opened: 5, Bytes: 100 + 1400 + 20 + 65535, Dummies: 1, Replayed: 1, Unauthentic: 1, Malformed: 1}
	if got := in.Stats(); got != stats {
		t.Errorf("Stats are %+v, want %+v", got, stats)
	}
}

// A note is a dummy packet to who does not look for it.
func TestNotes(t *testing.T) {
	out, in := pair(t, AES128GCM, true, 0)
	for _, size := range []int{1, 2, 3, 4, 100, maxNote} {
		note := bytes.Repeat([]byte{byte(size)}, size)
		pkt, err := out.SealNote(nil, note)
		if err != nil {
			t.Fatal(err)
		}
		if size == 100 {
			if inner, err := in.Open(pkt); len(inner) > 0 || err != nil {
				t.Errorf("Open gives %x, %v", inner, err)
			}
			continue
		}
		opened, notes, dropped := in.OpenBatch([][]byte{pkt}, nil, nil)
		if len(opened) > 0 || dropped.Total() > 0 || len(notes) != 1 || !bytes.Equal(notes[0], note) {
			t.Errorf("%d bytes: %d packets, %x, %+v dropped", size, len(opened), notes, dropped)
		}
	}
	for _, size := range []int{0, maxNote + 1} {
		if _, err := out.SealNote(nil, make([]byte, size)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// Several goroutines seal, and several carriers bring every packet twice: each
// is opened once.
func TestConcurrent(t *testing.T) {
	out, in := pair(t, AES128GCM, true, 0)
	const each = 500
	pkts := make(chan []byte, 8*each)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range each {
				p, err := out.Seal(nil, packet4(40), 0)
				if err != nil {
					t.Error(err)
					return
				}
				pkts <- p
				pkts <- bytes.Clone(p)
			}
		})
	}
	var opened, replayed atomic.Uint64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for p := range pkts {
				switch _, err := in.Open(p); {
				case err == nil:
					opened.Add(1)
				case errors.Is(err, ErrReplay):
					replayed.Add(1)
				default:
					t.Error(err)
				}
				in.State()
			}
		})
	}
	wg.Wait()
	close(pkts)
	readers.Wait()
	if opened.Load() != 4*each || replayed.Load() != 4*each {
		t.Errorf("%d opened and %d replayed, want %d of each", opened.Load(), replayed.Load(), 4*each)
	}
	if s := in.State(); s.Highest != 4*each || len(s.Missing) != 0 {
		t.Errorf("State is %+v, want all of %d", s, 4*each)
	}
}

func TestNewRefuses(t *testing.T) {
	key := keymat(AES128GCM)
	for _, tt := range []struct {
		name   string
		spi    uint32
		alg    Algorithm
		key    []byte
		window int
	}{
		{"SPI 0", 0, AES128GCM, key, 0},
		{"no algorithm", 1, 0, key, 0},
		{"unknown algorithm", 1, 4, key, 0},
		{"short key", 1, AES128GCM, key[1:], 0},
		{"key without salt", 1, AES256GCM, make([]byte, 32), 0},
		{"narrow window", 1, AES128GCM, key, 63},
		{"negative window", 1, AES128GCM, key, -1},
		{"huge window", 1, AES128GCM, key, MaxWindow + 1},
	} {
		if _, err := NewInbound(tt.spi, tt.alg, tt.key, true, tt.window); err == nil {
			t.Errorf("NewInbound takes %s", tt.name)
		}
		if tt.window != 0 {
			continue
		}
		if _, err := NewOutbound(tt.spi, tt.alg, tt.key, true); err == nil {
			t.Errorf("NewOutbound takes %s", tt.name)
		}
	}
}
