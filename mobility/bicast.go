package mobility

import "time"

// Bicast is Mobile IP's simultaneous bindings (RFC 5944, Section 3.3, the S
// bit): a client with two networks up moves from the one to the other while both
// work, or seem to, and the server sends by both for a while. Each packet is the
// same ESP packet on both, so whatever comes second dies in the replay window.

// both gives what the data that moves to c shall also be sent by, and for how
// long. Only a proven datagram carrier comes into question: more than three
// times what came from there may go to no other, and a stream whose peer is gone
// would hold up the packets of both.
func (b *Binding) both(now time.Time, c *bound) (CarrierID, time.Duration) {
	left := b.cfg.Bicast - now.Sub(b.reg.began)
	if !b.reg.simultaneous || left <= 0 || c.generation != b.reg.generation {
		return 0, 0
	}
	var also *bound
	for _, o := range b.sorted() {
		// The generation before may have had several; the last has the data.
		if o.generation < c.generation && o.validated && !reliable(o.name) && (also == nil || o.generation >= also.generation) {
			also = o
		}
	}
	if also == nil {
		return 0, 0
	}
	return also.id, left
}
