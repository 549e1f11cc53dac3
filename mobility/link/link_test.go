package link

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

// A wire is a carrier into another end's Table. It can be told to block, as a
// stream does whose peer is gone.
type wire struct {
	name      transports.Name
	to        *end
	back      *wire
	validated bool
	stuck     chan struct{} // Send waits for it, unless nil
	closed    chan struct{}
	sent      atomic.Int64 // bytes
	packets   atomic.Int64
}

func newWires(name transports.Name, a, b *end) (ab, ba *wire) {
	ab = &wire{name: name, to: b, closed: make(chan struct{}), validated: true}
	ba = &wire{name: name, to: a, closed: make(chan struct{}), validated: true}
	ab.back, ba.back = ba, ab
	return ab, ba
}

func (w *wire) Name() transports.Name            { return w.name }
func (w *wire) MTU() int                         { return 1472 }
func (w *wire) Describe() transports.Description { return transports.Description{} }
func (w *wire) Validated() bool                  { return w.validated }
func (w *wire) Close() error                     { close(w.closed); return nil }

func (w *wire) Send(ps []transports.Packet) error {
	if w.stuck != nil {
		select {
		case <-w.stuck:
		case <-w.closed:
			return net.ErrClosed
		}
	}
	for _, p := range ps {
		w.sent.Add(int64(len(p.Data)))
		w.packets.Add(1)
		data := bytes.Clone(p.Data)
		w.to.table.Receive(w.back, []transports.Packet{{Kind: p.Kind, Data: data}})
	}
	return nil
}

// An end is a link with what came out of it.
type end struct {
	table    Table
	link     *Link
	mu       sync.Mutex
	got      []uint32 // numbers of the packets delivered
	silences atomic.Int64
}

func newEnd() *end {
	e := &end{}
	e.link = New(Config{
		Table: &e.table,
		Deliver: func(pkts [][]byte, _ tunnel.Way) {
			e.mu.Lock()
			defer e.mu.Unlock()
			for _, p := range pkts {
				e.got = append(e.got, binary.BigEndian.Uint32(p[28:]))
			}
		},
		Silence: func() { e.silences.Add(1) },
		MTU:     1380,
	})
	return e
}

func (e *end) received() []uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got
}

// packet is an inner UDP packet with a number.
func packet(n uint32, size int) tunnel.Packet {
	b := make([]byte, size)
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	b[8], b[9] = 64, 17
	copy(b[12:], netip.MustParseAddr("10.77.0.2").AsSlice())
	copy(b[16:], netip.MustParseAddr("10.77.0.1").AsSlice())
	binary.BigEndian.PutUint16(b[22:], 9)
	binary.BigEndian.PutUint16(b[24:], uint16(size-20))
	binary.BigEndian.PutUint32(b[28:], n)
	return tunnel.NewPacket(b)
}

// children makes the two views of one pair of SAs.
func children(spiA, spiB, oldA, oldB uint32) (a, b ike.Child) {
	ka, kb := make([]byte, esp.AES128GCM.KeyLen()), make([]byte, esp.AES128GCM.KeyLen())
	rand.Read(ka)
	rand.Read(kb)
	a = ike.Child{InboundSPI: spiA, OutboundSPI: spiB, InboundKey: ka, OutboundKey: kb, Replaces: oldA, Role: ike.RoleInitiator}
	b = ike.Child{InboundSPI: spiB, OutboundSPI: spiA, InboundKey: kb, OutboundKey: ka, Replaces: oldB, Role: ike.RoleResponder}
	a.Algorithm, b.Algorithm = esp.AES128GCM, esp.AES128GCM
	a.ESN, b.ESN = true, true
	return a, b
}

// newPair joins two ends by an SA and gives a function that ends them.
func newPair(t *testing.T) (a, b *end) {
	t.Helper()
	a, b = newEnd(), newEnd()
	ca, cb := children(1000, 2000, 0, 0)
	if err := a.link.Install(ca); err != nil {
		t.Fatal(err)
	}
	if err := b.link.Install(cb); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func wantNumbers(t *testing.T, e *end, n int) {
	t.Helper()
	synctest.Wait()
	got := e.received()
	if len(got) != n {
		t.Fatalf("%d packets arrived, want %d", len(got), n)
	}
	for i, v := range got {
		if int(v) != i {
			t.Fatalf("packet %d arrived in place %d", v, i)
		}
	}
}

func TestPacketsWaitForACarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		for i := range 100 {
			a.link.Output(packet(uint32(i), 200))
		}
		wantNumbers(t, b, 0)
		ab, _ := newWires(transports.UDP, a, b)
		a.link.Use(ab, true, 0)
		wantNumbers(t, b, 100)
		a.link.Use(nil, false, 0)
		for i := range 50 {
			a.link.Output(packet(uint32(100+i), 200))
		}
		wantNumbers(t, b, 100)
		a.link.Use(ab, true, 0)
		wantNumbers(t, b, 150)
	})
}

// TestDeadStreamHoldsNothingUp has the pump blocked in a stream whose peer is
// gone when the next carrier comes into use.
func TestDeadStreamHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		dead, _ := newWires(transports.TCP, a, b)
		dead.stuck = make(chan struct{})
		a.link.Use(dead, true, 0)
		a.link.Output(packet(1000, 200))
		synctest.Wait()
		live, _ := newWires(transports.UDP, a, b)
		a.link.Use(live, true, 0)
		for i := range 10 {
			a.link.Output(packet(uint32(i), 200))
		}
		wantNumbers(t, b, 10)
		// What sat in the dead stream is sent again when it is closed.
		dead.Close()
		synctest.Wait()
		if got := b.received(); len(got) != 11 || got[10] != 1000 {
			t.Fatalf("arrived: %v", got)
		}
	})
}

func TestUnvalidatedPathIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		ab, ba := newWires(transports.UDP, a, b)
		ab.validated = false
		a.link.Use(ab, false, 1000)
		for i := range 40 {
			a.link.Output(packet(uint32(i), 200))
		}
		synctest.Wait()
		first := ab.sent.Load()
		if first == 0 || first > 1000 {
			t.Errorf("%d bytes sent on credit of 1000", first)
		}
		// What comes in from there allows three times as much.
		b.link.Use(ba, true, 0)
		b.link.Output(packet(0, 400))
		synctest.Wait()
		in := ba.sent.Load()
		if got := ab.sent.Load(); got <= first || got > 1000+3*in {
			t.Errorf("%d bytes sent after %d came in", got, in)
		}
		a.link.Validate(ab)
		wantNumbers(t, b, 40)
	})
}

func TestResponderWaitsForTheNewSA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		ab, ba := newWires(transports.UDP, a, b)
		a.link.Use(ab, true, 0)
		b.link.Use(ba, true, 0)
		ca, cb := children(1001, 2001, 1000, 2000)
		if err := b.link.Install(cb); err != nil {
			t.Fatal(err)
		}
		// The initiator does not know the new SA yet: this must go by the old.
		b.link.Output(packet(0, 100))
		wantNumbers(t, a, 1)
		if err := a.link.Install(ca); err != nil {
			t.Fatal(err)
		}
		a.link.Output(packet(0, 100))
		wantNumbers(t, b, 1)
		if got := b.link.outbound.Load().SPI(); got != 1001 {
			t.Errorf("after hearing the initiator on the new SA the responder sends on %d", got)
		}
		a.link.Remove(1000)
		b.link.Remove(2000)
		b.link.Output(packet(1, 100))
		wantNumbers(t, a, 2)
		if n := a.table.Strays.Load() + b.table.Strays.Load(); n != 0 {
			t.Errorf("%d packets lost in the rekeying", n)
		}
	})
}

func TestSilenceIsEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		ab, ba := newWires(transports.UDP, a, b)
		a.link.Use(ab, true, 0)
		b.link.Use(ba, true, 0)

		// Data in one direction only is answered by an empty packet.
		a.link.Output(packet(0, 100))
		time.Sleep(time.Hour)
		if n := ba.packets.Load(); n != 1 {
			t.Errorf("%d packets answered one packet of data, want 1", n)
		}
		if n := ab.packets.Load(); n != 1 {
			t.Errorf("%d packets sent for one, want 1: an empty packet wants no answer", n)
		}
		if n := a.silences.Load(); n != 0 {
			t.Errorf("%d silences on a path that works", n)
		}

		// A path that loses everything is noticed once, in time.
		hole, _ := newWires(transports.UDP, a, newEndless(t))
		a.link.Use(hole, true, 0)
		a.link.SetRoundTrip(200 * time.Millisecond)
		a.link.Output(packet(1, 100))
		time.Sleep(599 * time.Millisecond)
		if a.silences.Load() != 0 {
			t.Error("silence reported before three round trips")
		}
		time.Sleep(2 * time.Millisecond)
		if a.silences.Load() != 1 {
			t.Error("no silence reported after three round trips")
		}
		time.Sleep(time.Hour)
		if n := a.silences.Load(); n != 1 {
			t.Errorf("one lost packet is reported %d times", n)
		}
	})
}

// newEndless is an end that knows no SA: what is sent to it vanishes.
func newEndless(t *testing.T) *end {
	e := newEnd()
	t.Cleanup(e.link.Close)
	return e
}

// When the pair of SAs in use is removed, the newest of the others sends.
func TestNewestSATakesOver(t *testing.T) {
	for range 20 { // maps have no order; one run proves little
		e := newEnd()
		for spi := uint32(1001); spi <= 1006; spi++ {
			c, _ := children(spi, 1000+spi, 0, 0)
			if err := e.link.Install(c); err != nil {
				t.Fatal(err)
			}
		}
		for spi := uint32(1006); spi > 1001; spi-- {
			e.link.Remove(spi)
			if got, want := e.link.outbound.Load().SPI(), 1000+spi-1; got != want {
				t.Fatalf("after %d was removed %d sends, want %d", spi, got, want)
			}
		}
		e.link.Remove(1001)
		if e.link.outbound.Load() != nil {
			t.Fatal("a removed SA sends")
		}
		e.link.Close()
	}
}
