package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"time"
)

// cookieSecretLifetime is how often the secret changes; a cookie is good for
// one to two of them.
const cookieSecretLifetime = time.Minute

// A cookieJar makes and checks cookies without keeping any (RFC 7296, Section
// 2.6):
//
//	Cookie = <VersionIDofSecret> | HMAC(<secret>, Ni | SPIi)
//
// The RFC's example also covers the initiator's address. Ours does not: the
// same request comes over several encapsulations, through different NATs, and
// the cookie that came back over one of them has to be good over all. What the
// address would prevent, one cookie being spent from many forged addresses, the
// Responder prevents by keeping one half-open SA for each Ni and SPIi; so it
// takes a round trip to a real address to occupy one slot.
type cookieJar struct {
	version       byte
	current, last []byte
	since         time.Time
}

func (j *cookieJar) rotate(now time.Time, e entropy) {
	switch age := now.Sub(j.since); {
	case j.current == nil || age >= 2*cookieSecretLifetime || age < 0:
		j.last = nil
	case age >= cookieSecretLifetime:
		j.last = j.current
	default:
		return
	}
	j.current, j.since = e.bytes(32), now
	j.version++
}

func cookieSum(secret, ni []byte, spiI uint64) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write(ni)
	m.Write(binary.BigEndian.AppendUint64(nil, spiI))
	return m.Sum(nil)
}

// bake gives the cookie to demand.
func (j *cookieJar) bake(now time.Time, e entropy, ni []byte, spiI uint64) []byte {
	j.rotate(now, e)
	return append([]byte{j.version}, cookieSum(j.current, ni, spiI)...)
}

// good reports whether a cookie is one of ours for this request.
func (j *cookieJar) good(now time.Time, e entropy, cookie, ni []byte, spiI uint64) bool {
	j.rotate(now, e)
	if len(cookie) != 1+sha256.Size {
		return false
	}
	secret := j.current
	if cookie[0] == j.version-1 {
		secret = j.last
	} else if cookie[0] != j.version {
		return false
	}
	return secret != nil && subtle.ConstantTimeCompare(cookie[1:], cookieSum(secret, ni, spiI)) == 1
}
