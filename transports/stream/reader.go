package stream

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/godwit-net/godwit/transports"
)

const (
	// smallBuffer is what a quiet carrier keeps for reading; thousands of them
	// may be idle at once.
	smallBuffer = 2 << 10
	// largeBuffer is what a busy carrier borrows. It holds any frame and a
	// second one behind it.
	largeBuffer = 128 << 10
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// A Reader cuts a stream into packets and gives them to a carrier's handler.
type Reader struct {
	deliver func([]transports.Packet)
	small   []byte
	large   *[largeBuffer]byte
	have    int // bytes of an incomplete frame at the start of the buffer
	ps      []transports.Packet
}

func (r *Reader) buffer() []byte {
	if r.large != nil {
		return r.large[:]
	}
	if r.small == nil {
		r.small = make([]byte, smallBuffer)
	}
	return r.small
}

// From reads src to its end, which has to fall between two frames. It gives nil
// then, and otherwise src's error or one matching transports.ErrProtocol.
func (r *Reader) From(src io.Reader) error {
	for {
		buf := r.buffer()
		n, err := src.Read(buf[r.have:])
		r.have += n
		if n > 0 {
			rest, ps, splitErr := Split(buf[:r.have], r.ps[:0])
			r.ps = ps
			if len(ps) > 0 {
				r.deliver(ps)
			}
			if splitErr != nil {
				return splitErr
			}
			full := r.have == len(buf)
			if len(rest) < r.have { // else a long frame grows where it is
				r.have = copy(buf, rest)
			}
			r.resize(full, n)
		}
		switch {
		case errors.Is(err, io.EOF):
			if r.have > 0 {
				return fmt.Errorf("end within a frame: %w: %w", transports.ErrProtocol, io.ErrUnexpectedEOF)
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// Whole takes b, which has to hold whole frames, where it is: the packets alias it
// while they are delivered.
func (r *Reader) Whole(b []byte) error {
	rest, ps, err := Split(b, r.ps[:0])
	r.ps = ps
	if len(ps) > 0 {
		r.deliver(ps)
	}
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("end within a frame: %w: %w", transports.ErrProtocol, io.ErrUnexpectedEOF)
	}
	return err
}

// resize borrows the large buffer when the small one was filled, and gives it
// back when a read did not need it.
func (r *Reader) resize(full bool, n int) {
	switch {
	case r.large == nil && full:
		r.large = largeBuffers.Get().(*[largeBuffer]byte)
		copy(r.large[:], r.small[:r.have])
	case r.large != nil && r.have == 0 && n < smallBuffer:
		r.release()
	}
}

func (r *Reader) release() {
	if r.large != nil {
		largeBuffers.Put(r.large)
		r.large = nil
	}
}
