package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	isESP = transports.KindESP
	isIKE = transports.KindIKE
)

func packet(k transports.Kind, data string) transports.Packet {
	return transports.Packet{Kind: k, Data: []byte(data)}
}

func equal(a, b []transports.Packet) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Kind != b[i].Kind || !bytes.Equal(a[i].Data, b[i].Data) {
			return false
		}
	}
	return true
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []transports.Packet
		rest     string
		protocol bool
	}{
		{name: "nothing"},
		{name: "half a length", in: "\x00", rest: "\x00"},
		{name: "ESP", in: "\x00\x07SPI+x", want: []transports.Packet{packet(isESP, "SPI+x")}[:1], rest: ""},
		{name: "IKE", in: "\x00\x09\x00\x00\x00\x00abc", want: []transports.Packet{packet(isIKE, "abc")}},
		{name: "ESP whose SPI ends in zeros", in: "\x00\x07\x01\x00\x00\x00x", want: []transports.Packet{packet(isESP, "\x01\x00\x00\x00x")}},
		{name: "a keepalive between", in: "\x00\x04ab\x00\x03\xff\x00\x04cd", want: []transports.Packet{packet(isESP, "ab"), packet(isESP, "cd")}},
		{name: "an empty frame and an empty IKE message", in: "\x00\x02\x00\x06\x00\x00\x00\x00"},
		{name: "an incomplete frame", in: "\x00\x04ab\x00\x09abc", want: []transports.Packet{packet(isESP, "ab")}, rest: "\x00\x09abc"},
		{name: "length 0", in: "\x00\x04ab\x00\x00ab", want: []transports.Packet{packet(isESP, "ab")}, rest: "\x00\x00ab", protocol: true},
		{name: "length 1", in: "\x00\x01", rest: "\x00\x01", protocol: true},
	} {
		rest, ps, err := Split([]byte(c.in), nil)
		if !equal(ps, c.want) || string(rest) != c.rest || errors.Is(err, transports.ErrProtocol) != c.protocol || !c.protocol && err != nil {
			t.Errorf("%s: %v, rest %q, %v", c.name, ps, rest, err)
		}
	}
}

func TestAppendFrameLimits(t *testing.T) {
	for _, k := range []transports.Kind{isESP, isIKE} {
		p := transports.Packet{Kind: k, Data: bytes.Repeat([]byte{7}, transports.MaxPacket)}
		b := AppendFrame([]byte("x"), p)
		if len(b) != 1+FrameSize(p) || len(b)-1 > maxFrame {
			t.Errorf("largest %s packet: frame of %d bytes", k, len(b)-1)
		}
		if _, ps, err := Split(b[1:], nil); err != nil || !equal(ps, []transports.Packet{p}) {
			t.Errorf("largest %s packet does not come back: %v", k, err)
		}
		p.Data = append(p.Data, 7)
		if b := AppendFrame(nil, p); b != nil {
			t.Errorf("%s packet above the limit: frame of %d bytes", k, len(b))
		}
	}
}

// read gives what a Reader makes of src, copied.
func read(src io.Reader) (ps []transports.Packet, err error) {
	r := Reader{deliver: func(in []transports.Packet) {
		for _, p := range in {
			ps = append(ps, transports.Packet{Kind: p.Kind, Data: bytes.Clone(p.Data)})
			clear(p.Data)
		}
	}}
	err = r.From(src)
	r.release()
	return ps, err
}

func TestReaderEnd(t *testing.T) {
	if ps, err := read(bytes.NewReader([]byte("\x00\x04ab"))); err != nil || len(ps) != 1 {
		t.Errorf("end between frames: %v, %v", ps, err)
	}
	if ps, err := read(bytes.NewReader([]byte("\x00\x04ab\x00\x04c"))); !errors.Is(err, transports.ErrProtocol) || len(ps) != 1 {
		t.Errorf("end within a frame: %v, %v", ps, err)
	}
	lost := errors.New("lost")
	if _, err := read(iotest.ErrReader(lost)); !errors.Is(err, lost) {
		t.Errorf("failing stream: %v", err)
	}
}

// TestReaderSizes: frames around the sizes of the buffers come through, however
// the stream cuts them.
func TestReaderSizes(t *testing.T) {
	var wire []byte
	var want []transports.Packet
	for _, n := range []int{1, smallBuffer - 3, smallBuffer - 2, smallBuffer - 1, 65529, 5, 65529, 65529, 1, 1} {
		p := transports.Packet{Kind: isIKE, Data: bytes.Repeat([]byte{byte(n)}, n)}
		want = append(want, p)
		wire = AppendFrame(wire, p)
	}
	for name, src := range map[string]io.Reader{
		"whole": bytes.NewReader(wire),
		"bytes": iotest.OneByteReader(bytes.NewReader(wire)),
		"half":  iotest.HalfReader(bytes.NewReader(wire)),
		"eof":   iotest.DataErrReader(bytes.NewReader(wire)),
	} {
		if ps, err := read(src); err != nil || !equal(ps, want) {
			t.Errorf("%s: %d packets, %v", name, len(ps), err)
		}
	}
}

func TestQueuePeel(t *testing.T) {
	q := newQueue()
	urgent := packet(isIKE, "urgent")
	urgent.Urgent = true
	if err := q.put([]transports.Packet{packet(isESP, "aaaa"), packet(isESP, ""), urgent, packet(isESP, "bbbb")}); err != nil {
		t.Fatal(err)
	}
	// 2+4+6 bytes of the urgent one and 2+4 of the next.
	if _, ps, err := Split(q.peel(18), nil); err != nil || !equal(ps, []transports.Packet{packet(isIKE, "urgent"), packet(isESP, "aaaa")}) {
		t.Errorf("peeled %v, %v", ps, err)
	}
	if b := q.peel(5); len(b) != 0 {
		t.Errorf("peeled %q, which is more than allowed", b)
	}
	c := q.take()
	if string(c.bytes()) != "\x00\x06bbbb" || q.bulk.size != 0 || q.urgent.size != 0 {
		t.Errorf("left %q, sizes %d and %d", c.bytes(), q.bulk.size, q.urgent.size)
	}
	q.close()
}

// breaking is a stream whose writes fail, which ends its reads with another error.
type breaking struct{ shut chan struct{} }

var errBroken = errors.New("broken")

func (b breaking) WriteFrames([]byte) error   { return errBroken }
func (b breaking) ReadFrames(r *Reader) error { <-b.shut; return io.ErrUnexpectedEOF }
func (b breaking) Close() error               { close(b.shut); return nil } // twice would panic

type ends chan error

func (ends) Receive(transports.Carrier, []transports.Packet) {}
func (e ends) Closed(_ transports.Carrier, err error)        { e <- err }

// TestFirstCause: what ended the carrier is told, not what followed from it.
func TestFirstCause(t *testing.T) {
	e := make(ends, 2)
	c := New(transports.TCP, transports.Description{}, e)
	if err := c.Send([]transports.Packet{packet(isESP, "before Run")}); err != nil {
		t.Fatal(err)
	}
	c.Run(breaking{make(chan struct{})})
	if err := <-e; !errors.Is(err, errBroken) || len(e) != 0 {
		t.Errorf("ended with %v, and %d times more", err, len(e))
	}
	// Closed before it began, the stream is closed and the end told all the same.
	c = New(transports.TCP, transports.Description{}, e)
	c.Close()
	b := breaking{make(chan struct{})}
	c.Run(b)
	<-b.shut
	if err := <-e; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed early: %v", err)
	}
}

// FuzzReader: the packets do not depend on how the stream is cut, and framed
// again they are read as the same.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x00\x04ab\x00\x03\xff\x00\x09\x00\x00\x00\x00abc"), uint16(3))
	f.Add([]byte("\x00\x04ab\x00\x01"), uint16(1))
	f.Add([]byte("\xff\xff"), uint16(2))
	f.Fuzz(func(t *testing.T, wire []byte, cut uint16) {
		rest, want, wantErr := Split(bytes.Clone(wire), nil)
		if wantErr == nil && len(rest) > 0 {
			wantErr = transports.ErrProtocol
		}
		n := min(int(cut), len(wire))
		ps, err := read(io.MultiReader(bytes.NewReader(wire[:n]), iotest.HalfReader(bytes.NewReader(wire[n:]))))
		if !equal(ps, want) || (err == nil) != (wantErr == nil) || err != nil && !errors.Is(err, transports.ErrProtocol) {
			t.Fatalf("in pieces: %v, %v; whole: %v, %v", ps, err, want, wantErr)
		}
		var again []byte
		for _, p := range ps {
			again = AppendFrame(again, p)
		}
		// A lone 0xFF of ESP would be a keepalive, but no keepalive gets here.
		if rest, ps2, err := Split(again, nil); err != nil || len(rest) > 0 || !equal(ps2, ps) {
			t.Fatalf("framed again: %v, %v", ps2, err)
		}
	})
}
