package lab

import (
	"slices"
	"syscall"
	"time"
)

// Timing of TCP. RFC 6298 asks for a minimum of a second; common systems take
// 200 ms, and so does the laboratory.
const (
	initialRTO = time.Second // RFC 6298, Section 2.1
	minVar     = 200 * time.Millisecond
	maxRTO     = time.Minute
	synTries   = 6
	// RFC 1122, Section 4.2.3.5, asks for at least 100 seconds; common systems
	// take about a quarter of an hour.
	giveUp       = 15 * time.Minute
	giveUpClosed = time.Minute // once the user has closed the conn
	finWait2     = time.Minute // for the peer's FIN
	lingering    = time.Second // in TIME-WAIT; short, since numbers are never reused here
)

// lostAfter later sends that arrived show that one was lost, RFC 6675, Section 2.
const lostAfter = 3

// window is the edge that the peer may send up to.
func (c *tcpConn) window() uint64 { return c.expected + tcpBuffer - uint64(c.unreadSize) }

// emit sends a segment with the fields that all have.
func (c *tcpConn) emit(s segment, payload []byte) {
	if c.state != synSent {
		s.ack, s.ackSeq = true, c.expected
		for _, e := range c.early {
			if last := len(s.sacked) - 1; last >= 0 && s.sacked[last].to == e.seq {
				s.sacked[last].to = e.end()
				continue
			}
			s.sacked = append(s.sacked, span{e.seq, e.end()})
		}
	}
	s.edge = c.window()
	c.advertised = s.edge
	// An error means that the address is gone; to TCP that is silence.
	_ = c.host.send(&packet{proto: TCP, src: c.local, dst: c.remote, payload: payload, seg: &s})
}

func (e early) end() uint64 {
	end := e.seq + uint64(len(e.payload))
	if e.fin {
		end++
	}
	return end
}

// sendSYN sends the SYN of either end and starts the timer.
func (c *tcpConn) sendSYN() {
	c.emit(segment{syn: true, mss: c.mss}, nil)
	c.start()
}

func (c *tcpConn) sendACK() { c.emit(segment{seq: c.next}, nil) }

// sendData sends a segment, the first time or again.
func (c *tcpConn) sendData(s *sent) {
	c.sends++
	s.at, s.number, s.lost = time.Now(), c.sends, false
	c.emit(segment{seq: s.seq, fin: s.fin}, s.payload)
}

// output sends what the window allows.
func (c *tcpConn) output() {
	if c.state != established {
		return
	}
	if len(c.flight) == 0 && (c.queued > 0 || c.finWanted && !c.finSent) {
		c.progress = time.Now()
	}
	for c.queued > 0 && c.next < c.edge {
		want := min(c.mss, c.queued)
		n := int(min(uint64(want), c.edge-c.next))
		// Sender's silly window avoidance, RFC 1122, Section 4.2.3.4.
		if n < want && len(c.flight) > 0 {
			break
		}
		s := &sent{seq: c.next, end: c.next + uint64(n), payload: c.dequeue(n)}
		c.flight = append(c.flight, s)
		c.flying += n
		c.next = s.end
		c.sendData(s)
	}
	if c.queued == 0 && c.finWanted && !c.finSent {
		c.finSent = true
		c.passive = c.peerFin
		s := &sent{seq: c.next, end: c.next + 1, fin: true}
		c.flight = append(c.flight, s)
		c.next = s.end
		c.sendData(s)
	}
	if c.due.IsZero() && (len(c.flight) > 0 || c.queued > 0) {
		c.start()
	}
}

// dequeue takes n bytes of the queue, without a copy where they are together.
func (c *tcpConn) dequeue(n int) []byte {
	c.queued -= n
	if head := c.queue[0]; len(head) > n {
		c.queue[0] = head[n:]
		return head[:n:n]
	} else if len(head) == n {
		c.queue = c.queue[1:]
		return head
	}
	b := make([]byte, 0, n)
	for len(b) < n {
		k := min(n-len(b), len(c.queue[0]))
		b = append(b, c.queue[0][:k]...)
		if c.queue[0] = c.queue[0][k:]; len(c.queue[0]) == 0 {
			c.queue = c.queue[1:]
		}
	}
	return b
}

// receive takes a segment of the peer, or of a firewall in its name.
func (c *tcpConn) receive(p *packet) {
	s := p.seg
	switch {
	case s.rst && c.state == synSent:
		c.fail(syscall.ECONNREFUSED)
		return
	case s.rst:
		c.fail(syscall.ECONNRESET)
		return
	case c.state == synSent:
		if s.syn && s.ack {
			c.mss, c.edge = min(c.mss, s.mss), s.edge
			c.establish()
			before := c.sends
			if len(c.flight) > 0 {
				c.answered(s)
			}
			if c.sends == before {
				c.sendACK()
			}
		}
		return
	case c.state == synReceived && s.syn:
		c.sendSYN() // the peer asks again
		return
	case c.state == synReceived:
		c.establish()
		if l := c.listener; l.closed || len(l.ready) >= backlog {
			c.abort(syscall.ECONNABORTED)
			return
		}
		c.listener.ready = append(c.listener.ready, c)
		c.listener.changed.broadcast()
	case s.syn && c.unproven:
		c.emit(segment{syn: true, mss: c.mss}, nil) // ours was lost
		return
	case s.syn:
		c.sendACK() // ours was lost
		return
	}
	c.unproven = false
	c.acknowledged(s)
	if len(p.payload) > 0 && c.userClosed {
		c.abort(syscall.ECONNRESET) // RFC 1122, Section 4.2.2.13
		return
	}
	before := c.sends
	answer := len(p.payload) > 0 || s.fin || s.probe
	if len(p.payload) > 0 || s.fin {
		c.accept(early{s.seq, p.payload, s.fin})
	}
	c.output()
	if answer && c.sends == before {
		c.sendACK()
	}
	c.ended()
}

// establish ends the handshake.
func (c *tcpConn) establish() {
	if c.backoff == 0 {
		c.measure(time.Since(c.progress))
	}
	c.state, c.made = established, true
	c.backoff, c.due, c.progress = 0, time.Time{}, time.Now()
	c.changed.broadcast()
}

// acknowledged takes what the peer says about our bytes.
func (c *tcpConn) acknowledged(s *segment) {
	now := time.Now()
	c.progress = now
	c.edge = max(c.edge, s.edge)
	advanced := false
	for len(c.flight) > 0 && c.flight[0].end <= s.ackSeq {
		f := c.flight[0]
		c.flight[0] = nil
		c.flight = c.flight[1:]
		c.flying -= len(f.payload)
		c.newest = max(c.newest, f.number)
		// Karn's algorithm, RFC 6298, Section 3.
		if !f.again && !f.sacked {
			c.measure(now.Sub(f.at))
		}
		advanced = true
	}
	for _, f := range c.flight {
		for _, r := range s.sacked {
			if !f.sacked && r.from <= f.seq && f.end <= r.to {
				f.sacked = true
				c.newest = max(c.newest, f.number)
			}
		}
	}
	for _, f := range c.flight {
		if !f.sacked && (f.lost || f.number+lostAfter <= c.newest) {
			f.again = true
			c.sendData(f)
		}
	}
	if advanced {
		c.backoff = 0
		c.changed.broadcast()
	}
	switch {
	case len(c.flight) == 0 && c.queued == 0:
		c.due = time.Time{}
	case advanced || len(c.flight) == 0:
		c.start()
	}
}

// accept puts bytes where they belong.
func (c *tcpConn) accept(e early) {
	if e.end() <= c.expected || c.peerFin {
		return // again
	}
	at, found := slices.BinarySearchFunc(c.early, e.seq, func(x early, seq uint64) int {
		return int(int64(x.seq - seq))
	})
	if !found {
		c.early = slices.Insert(c.early, at, e)
	}
	for len(c.early) > 0 && c.early[0].seq <= c.expected {
		e := c.early[0]
		c.early = slices.Delete(c.early, 0, 1)
		if e.end() <= c.expected {
			continue
		}
		if len(e.payload) > 0 {
			c.unread = append(c.unread, e.payload)
			c.unreadSize += len(e.payload)
		}
		c.expected = e.end()
		c.peerFin = e.fin
		c.changed.broadcast()
	}
}

// ended lets go of the connection when both directions have ended.
func (c *tcpConn) ended() {
	in := c.host.in
	if c.state != established || !c.finSent || len(c.flight) > 0 {
		return
	}
	switch {
	case c.peerFin && c.passive:
		c.state = closed
		c.remove()
	case c.peerFin:
		c.state = timeWait
		in.at(time.Now().Add(lingering), c.remove)
	case c.userClosed && !c.orphaned:
		c.orphaned = true
		in.at(time.Now().Add(finWait2), func() {
			if c.state == established {
				c.fail(syscall.ETIMEDOUT)
			}
		})
	}
}

func (c *tcpConn) remove() {
	if t := (tuple{c.local, c.remote}); c.host.tcp[t] == c {
		delete(c.host.tcp, t)
	}
}

// fail ends the connection at once, at this end.
func (c *tcpConn) fail(err error) {
	if c.state == timeWait || c.state == closed {
		return
	}
	c.state, c.err = closed, err
	c.queue, c.queued, c.flight, c.flying, c.early = nil, 0, nil, 0, nil
	c.due = time.Time{}
	c.readBy.stop()
	c.writeBy.stop()
	c.remove()
	c.changed.broadcast()
}

// abort ends the connection at both ends.
func (c *tcpConn) abort(err error) {
	if c.state == timeWait || c.state == closed {
		return
	}
	_ = c.host.send(c.host.in.reset(c.local, c.remote))
	c.fail(err)
}

// measure takes a round trip time, RFC 6298, Section 2.
func (c *tcpConn) measure(r time.Duration) {
	if c.srtt == 0 {
		c.srtt, c.rttvar = r, r/2
		return
	}
	c.rttvar = (3*c.rttvar + (c.srtt - r).Abs()) / 4
	c.srtt = (7*c.srtt + r) / 8
}

// start starts the retransmission timer, or starts it anew.
func (c *tcpConn) start() {
	rto := initialRTO
	if c.made {
		rto = c.srtt + max(minVar, 4*c.rttvar)
	}
	c.due = time.Now().Add(min(rto<<c.backoff, maxRTO))
	c.plan()
}

// plan has tick called at due. An event that is planned already and comes
// earlier will plan the next one.
func (c *tcpConn) plan() {
	if !c.planned.IsZero() && !c.planned.After(c.due) {
		return
	}
	at := c.due
	c.planned = at
	c.host.in.at(at, func() {
		if c.planned.Equal(at) {
			c.planned = time.Time{}
			c.tick()
		}
	})
}

// tick looks whether the timer has run out.
func (c *tcpConn) tick() {
	now := time.Now()
	if c.due.IsZero() {
		return
	}
	if now.Before(c.due) {
		c.plan()
		return
	}
	c.due = time.Time{}
	limit := giveUp
	if c.userClosed {
		limit = giveUpClosed
	}
	if c.state != established && c.backoff >= synTries || now.Sub(c.progress) >= limit {
		c.fail(syscall.ETIMEDOUT)
		return
	}
	c.backoff = min(c.backoff+1, 16)
	if c.state != established {
		c.sendSYN()
		return
	}
	first := true
	for _, f := range c.flight {
		if f.sacked {
			continue
		}
		f.again = true
		if first {
			c.sendData(f)
		} else {
			f.lost = true
		}
		first = false
	}
	if first {
		c.emit(segment{seq: c.next, probe: true}, nil)
	}
	c.start()
}
