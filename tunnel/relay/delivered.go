package relay

import (
	"net"
	"time"
)

const (
	// deliverTime bounds how long a reset waits for what was written to arrive.
	deliverTime = time.Minute
	// deliverFirst and deliverMost are the pauses between two looks.
	deliverFirst = time.Millisecond
	deliverMost  = 100 * time.Millisecond
)

// A Deliverer is a stream that knows whether what was written has arrived. No more
// is written from the first question on.
type Deliverer interface{ Delivered() bool }

// awaitDelivered waits until the peer has what was written to c, or can no longer
// get it, or deliverTime is over: a reset drops what it overtakes.
func awaitDelivered(c net.Conn) {
	for began, pause := time.Now(), deliverFirst; !delivered(c) && time.Since(began) < deliverTime; pause = min(2*pause, deliverMost) {
		time.Sleep(pause)
	}
}

func delivered(c net.Conn) bool {
	c, _ = under(c)
	if d, ok := c.(Deliverer); ok {
		return d.Delivered()
	}
	return unsent(c) == 0
}
