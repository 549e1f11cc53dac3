package server

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/transports"
)

// unknownEvery is the least time between two packets of unknown SAs that the owner
// hears of, whoever sends them.
const unknownEvery = time.Millisecond

// tokenSecret is what clients recognize a server by that has lost their SAs (RFC
// 6290). It is made from the server's key, so that it outlives the server without a
// file of its own.
func tokenSecret(key ed25519.PrivateKey) ike.Secret {
	m := hmac.New(sha256.New, key.Seed())
	m.Write([]byte("godwit: secret of the tokens of RFC 6290"))
	return m.Sum(nil)
}

// unknownSPI has an ESP packet answered that belongs to no SA: its sender may not
// know that this server was started anew. With stealth nobody is answered who has
// not shown to be a client.
func (s *Server) unknownSPI(c transports.Carrier, spi uint32, size int) {
	if s.door != nil {
		if a, ok := c.(transports.Admitting); !ok || !a.Admitted() {
			return
		}
	}
	now := clock.Now()
	last := s.lastUnknown.Load()
	if now-last < int64(unknownEvery) || !s.lastUnknown.CompareAndSwap(last, now) {
		return
	}
	s.owner.Offer(func(now time.Time) {
		// It may have been installed meanwhile: data overtakes nothing, but the
		// owner may have been behind.
		if !s.table.Known(spi) {
			s.responder.UnknownSPI(now, spi, size, c)
			s.ikeEvents(now)
		}
	})
}
