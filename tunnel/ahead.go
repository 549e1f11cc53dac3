package tunnel

import (
	"encoding/binary"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A connection of which oneAhead bytes have not left yet is fed no more while
// all connections together have allAhead in queues. With more of it the memory
// that bytes lie in is out of the processor's caches when their turn comes, with
// less a single connection waits too often.
const (
	allAhead = 2 << 20
	oneAhead = 256 << 10
)

// ahead counts the bytes of a connection that were written and have not left:
// TCP has not sent them yet, or they wait in a Queue.
type ahead struct {
	bytes  atomic.Int64 // below zero for a moment, between sending and the count
	wakeAt atomic.Int64 // wake Feed when no more than this are left
	next   uint32       // the sequence number after what TCP has sent
	begun  bool
}

// waitAhead waits until the connection may write more.
func (c *conn) waitAhead() error {
	a := &c.ahead
	for {
		now := a.bytes.Load()
		if now < oneAhead || c.stack.ahead.Load() < allAhead {
			return nil
		}
		if err := c.ended(&c.out); err != nil {
			return c.failed("write", err)
		}
		at := max(now/2, oneAhead/2)
		a.wakeAt.Store(at)
		if a.bytes.Load() > at {
			<-c.out.wake
		}
	}
}

// left notes that n bytes have left, and wakes Feed when that is enough.
func (c *conn) left(n int) {
	now := c.ahead.bytes.Add(-int64(n))
	if at := c.ahead.wakeAt.Load(); now <= at && now+int64(n) > at {
		c.out.notify()
	}
}

// KUID and KGID are what gVisor asks owners of packets for, as connections are.
func (*conn) KUID() uint32 { return 0 }
func (*conn) KGID() uint32 { return 0 }

// owner gives the connection that p is of, and how much of its data p has.
func owner(pb *stack.PacketBuffer) (c *conn, n int) {
	if pb == nil {
		return nil, 0
	}
	if c, _ = pb.Owner.(*conn); c != nil {
		n = pb.Data().Size()
	}
	return c, n
}

// sent notes that TCP sends a packet. It runs under the connection's lock.
func sent(pb *stack.PacketBuffer) {
	c, n := owner(pb)
	tcp := pb.TransportHeader().Slice()
	if n == 0 || len(tcp) < tcpHeader {
		return
	}
	a, seq := &c.ahead, binary.BigEndian.Uint32(tcp[tcpSequence:])
	if !a.begun {
		a.begun, a.next = true, seq
	}
	if fresh := int32(seq + uint32(n) - a.next); fresh > 0 {
		a.next += uint32(fresh)
		c.left(int(fresh))
	}
}

// waits notes that a packet waits in a Queue.
func (p Packet) waits() {
	if c, n := owner(p.pb); n > 0 {
		c.ahead.bytes.Add(int64(n))
		c.stack.ahead.Add(int64(n))
	}
}

// waited notes that it does no more.
func (p Packet) waited() {
	if c, n := owner(p.pb); n > 0 {
		c.stack.ahead.Add(-int64(n))
		c.left(n)
	}
}
