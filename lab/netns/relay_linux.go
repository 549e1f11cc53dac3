package netns

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// relayQueue bounds the packets that a Relay holds in each direction: 100 ms
// of 100 MB/s in packets of 1,500 bytes.
const relayQueue = 8192

// A Relay is a wire made of two TUN devices and a copier between them in this
// process, which can hold packets back.
type Relay struct {
	delay   atomic.Int64 // nanoseconds, one way
	faults  atomic.Pointer[Faults]
	dropped atomic.Uint64
	tuns    [2]*os.File
	running sync.WaitGroup
}

// Faults are what a Relay does to packets besides holding them back. Shares are
// from 0 to 1.
type Faults struct {
	Duplicate float64       // share of the packets that arrive twice
	Late      float64       // share that arrive later than the others,
	By        time.Duration // by this

	Loss float64 // share that is lost
	// Rate is in bytes of IP packets a second, each way; 0: as fast as it goes.
	// Before it Queue bytes fit.
	Rate, Queue int
}

// SetFaults changes the faults for packets that leave the relay from now on.
func (r *Relay) SetFaults(f Faults) { r.faults.Store(&f) }

type held struct {
	due time.Time
	buf *[]byte
}

// Relay joins two hosts as Wire does, but each packet takes delay from one end
// to the other. Packets of TUN devices have no Ethernet header, so neither end
// asks for the other's hardware address.
func (l *Lab) Relay(a, b Port, delay time.Duration) *Relay {
	l.t.Helper()
	r := &Relay{}
	r.SetDelay(delay)
	l.t.Cleanup(r.close)
	for i, p := range []Port{a, b} {
		h := p.Host
		if err := h.Do(func() (err error) { r.tuns[i], err = openTUN(p.Dev); return err }); err != nil {
			l.t.Fatalf("device %s at %s: %v", p.Dev, h.Name, err)
		}
		link := h.link(p.Dev)
		err := h.nl.LinkSetMTU(link, p.mtu())
		if err == nil {
			// The device drops what exceeds its queue; a burst of several
			// streams must fit.
			err = h.nl.LinkSetTxQLen(link, relayQueue)
		}
		if err != nil {
			l.t.Fatalf("set up %s at %s: %v", p.Dev, h.Name, err)
		}
		h.Address(p.Dev, p.Addrs...)
		h.Up(p.Dev)
	}
	r.copy(r.tuns[0], r.tuns[1])
	r.copy(r.tuns[1], r.tuns[0])
	return r
}

// SetDelay changes the delay of packets that come from now on; none overtakes
// an earlier one.
func (r *Relay) SetDelay(d time.Duration) { r.delay.Store(int64(d)) }

// Dropped counts the packets that found the relay's queue full.
func (r *Relay) Dropped() uint64 { return r.dropped.Load() }

func (r *Relay) close() {
	for _, f := range r.tuns {
		if f != nil {
			f.Close()
		}
	}
	r.running.Wait()
}

// copy starts the two halves of one direction: one takes packets in, with the
// time at which they are due, the other gives them out then.
func (r *Relay) copy(from, to *os.File) {
	queue := make(chan held, relayQueue)
	pool := sync.Pool{New: func() any { b := make([]byte, 0, 65535); return &b }}
	r.running.Go(func() {
		defer close(queue)
		var busy time.Time // when what waits for the rate will have left
		for {
			buf := pool.Get().(*[]byte)
			n, err := from.Read((*buf)[:cap(*buf)])
			if err != nil {
				return
			}
			*buf = (*buf)[:n]
			due := time.Now()
			if f := r.faults.Load(); f != nil {
				if f.Rate > 0 {
					if busy.Before(due) {
						busy = due
					}
					if busy.Sub(due).Seconds()*float64(f.Rate) > float64(f.Queue) {
						r.dropped.Add(1)
						pool.Put(buf)
						continue
					}
					busy = busy.Add(time.Duration(int64(n) * int64(time.Second) / int64(f.Rate)))
					due = busy
				}
				if rand.Float64() < f.Loss {
					pool.Put(buf)
					continue
				}
			}
			select {
			case queue <- held{due.Add(time.Duration(r.delay.Load())), buf}:
			default:
				r.dropped.Add(1)
				pool.Put(buf)
			}
		}
	})
	r.running.Go(func() {
		for p := range queue {
			if wait := time.Until(p.due); wait > 0 {
				time.Sleep(wait)
			}
			// A device that is down refuses packets, as a cut wire does.
			write := func() { _, _ = to.Write(*p.buf) }
			f := r.faults.Load()
			if f != nil && rand.Float64() < f.Duplicate {
				write()
			}
			if f != nil && rand.Float64() < f.Late {
				r.running.Go(func() {
					time.Sleep(f.By)
					write()
				})
				continue
			}
			write()
			pool.Put(p.buf)
		}
	})
}

// openTUN makes a TUN device in the current namespace.
func openTUN(dev string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(dev)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}
