package transporttest

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/godwit-net/godwit/transports"
)

// A Recorder is a transports.Handler that keeps copies of what it is given.
type Recorder struct {
	mu       sync.Mutex
	change   sync.Cond
	packets  []transports.Packet
	carriers []transports.Carrier // in order of their first packet
	closed   map[transports.Carrier][]error
	afterEnd int // packets of carriers that had ended
	gate     chan struct{}
	react    func(c transports.Carrier, ps []transports.Packet)
}

// NewRecorder gives an empty Recorder.
func NewRecorder() *Recorder {
	r := &Recorder{closed: make(map[transports.Carrier][]error)}
	r.change.L = &r.mu
	return r
}

// Receive implements transports.Handler. It writes over the packets, as it may.
func (r *Recorder) Receive(c transports.Carrier, ps []transports.Packet) {
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
	r.mu.Lock()
	if len(r.closed[c]) > 0 {
		r.afterEnd += len(ps)
	}
	known := false
	for _, k := range r.carriers {
		known = known || k == c
	}
	if !known {
		r.carriers = append(r.carriers, c)
	}
	mine := make([]transports.Packet, len(ps))
	for i, p := range ps {
		mine[i] = transports.Packet{Kind: p.Kind, Data: bytes.Clone(p.Data)}
		for j := range p.Data {
			p.Data[j] = 0xA5
		}
	}
	r.packets = append(r.packets, mine...)
	react := r.react
	r.change.Broadcast()
	r.mu.Unlock()
	if react != nil {
		react(c, mine)
	}
}

// Closed implements transports.Handler.
func (r *Recorder) Closed(c transports.Carrier, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed[c] = append(r.closed[c], err)
	r.change.Broadcast()
}

// React has f called in Receive, after the packets were noted.
func (r *Recorder) React(f func(c transports.Carrier, ps []transports.Packet)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.react = f
}

// Hold keeps Receive waiting until the function that it gives is called.
func (r *Recorder) Hold() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gate := make(chan struct{})
	r.gate = gate
	return func() {
		r.mu.Lock()
		r.gate = nil
		r.mu.Unlock()
		close(gate)
	}
}

// Packets waits for n packets in all and gives them.
func (r *Recorder) Packets(n int) []transports.Packet {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.packets) < n {
		r.change.Wait()
	}
	return r.packets
}

// Take waits for n packets, gives those that are there and forgets them.
func (r *Recorder) Take(n int) []transports.Packet {
	r.Packets(n)
	r.mu.Lock()
	defer r.mu.Unlock()
	ps := r.packets
	r.packets = nil
	return ps
}

// Carrier waits for the first packet and gives its carrier.
func (r *Recorder) Carrier() transports.Carrier { return r.Carriers(1)[0] }

// Carriers waits for n carriers and gives them in order of their first packets.
func (r *Recorder) Carriers(n int) []transports.Carrier {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.carriers) < n {
		r.change.Wait()
	}
	return append([]transports.Carrier(nil), r.carriers...)
}

// Forget has Carrier and Carriers start anew.
func (r *Recorder) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.carriers = nil
}

// Ends waits for c to end and gives the errors of all calls of Closed so far.
func (r *Recorder) Ends(c transports.Carrier) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.closed[c]) == 0 {
		r.change.Wait()
	}
	return append([]error(nil), r.closed[c]...)
}

// AfterEnd counts the packets that came from carriers that had ended.
func (r *Recorder) AfterEnd() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.afterEnd
}

// Payload gives size bytes that n and the kind decide. An ESP packet does not
// begin with the non-ESP marker, an IKE message may.
func Payload(kind transports.Kind, size, n int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + n*13)
	}
	if size >= 8 {
		binary.BigEndian.PutUint32(b[4:], uint32(n))
	}
	if kind == transports.KindIKE {
		clear(b[:min(size, 4)])
	} else if size > 0 {
		b[0] = 1 + byte(n%200)
	}
	return b
}
