// Package knock has the first IKE message show that its sender knows a server's
// keys, so that a server may answer nobody else.
//
// The nonce of IKE_SA_INIT (RFC 7296, Section 2.10) ends with a mark: a MAC over
// the rest of the nonce, the initiator's SPI and the time. To whoever does not know
// the key a nonce with a mark is a random one. docs/protocol.md has the bytes.
//
// # Limitations
//
// All clients of a server make their marks with one key, and who has been a client
// knows it. A mark lets nobody in; it only has the server answer.
package knock

import (
	"container/list"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

const (
	// MarkLen is the length of a mark, in bytes.
	MarkLen = 16
	// randomLen is what is left of a nonce at least, RFC 7296, Section 2.10.
	randomLen = 16
	// slot is how long a mark is made with the same time, and skew is by how many of
	// them the clocks of both ends may differ: four minutes for sure.
	slot = 2 * time.Minute
	skew = 2
	// repeats is how long copies of a message are answered after the first one came:
	// those of other encapsulations, and the retransmissions.
	repeats = time.Minute
	// memory is how long a mark is remembered: until its time has passed for sure.
	memory = (2*skew + 2) * slot
	// maxMarks bounds those that are remembered. Only who knows the key makes any.
	maxMarks = 1 << 16
)

// A Key makes and checks marks.
type Key [sha256.Size]byte

// NewKey derives the key from what a server's clients know of it and nobody else
// does: its public key, which leaves it encrypted alone, and its secret path.
func NewKey(server ed25519.PublicKey, path string) Key {
	h := sha256.New()
	h.Write([]byte("godwit knock v1\x00"))
	h.Write(server)
	h.Write([]byte(path))
	return Key(h.Sum(nil))
}

// LogValue hides the key.
func (Key) LogValue() slog.Value { return slog.StringValue("redacted") }

// String hides the key.
func (Key) String() string { return "redacted" }

// GoString hides the key.
func (Key) GoString() string { return "redacted" }

// Mark gives the end of a nonce that begins with random, for a first message with
// the initiator's SPI.
func (k Key) Mark(now time.Time, spi uint64, random []byte) []byte {
	return k.mark(number(now), spi, random)
}

func number(t time.Time) int64 { return t.Unix() / int64(slot/time.Second) }

func (k Key) mark(n int64, spi uint64, random []byte) []byte {
	h := hmac.New(sha256.New, k[:])
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(n))
	binary.BigEndian.PutUint64(b[8:], spi)
	h.Write(b[:])
	h.Write(random)
	return h.Sum(nil)[:MarkLen]
}

// A Door tells which messages are answered. Its methods may be called from several
// goroutines.
type Door struct {
	key Key

	mu    sync.Mutex
	known map[seen]*list.Element
	order list.List // of *entry, the oldest first
}

// A seen mark is told apart by where it comes from: a client sends one message by
// each encapsulation at once, and each of them has its own way.
type seen struct {
	mark  [MarkLen]byte
	label string
}

type entry struct {
	seen
	source string
	first  time.Time
}

// NewDoor makes a Door that opens to who knows the key.
func NewDoor(k Key) *Door { return &Door{key: k, known: map[seen]*list.Element{}} }

// Opens tells whether msg, a whole IKE message from anywhere, is a request for
// IKE_SA_INIT with a good mark. label says by what it came, and source from what
// address. A mark that was seen is good for a minute more from the same source by
// the same label, and never again.
func (d *Door) Opens(now time.Time, msg []byte, label, source string) bool {
	h, err := message.ParseHeader(msg)
	if err != nil || h.Exchange != message.IKESAInit || h.Response() || !h.FromInitiator() || h.ResponderSPI != 0 || h.ID != 0 {
		return false
	}
	m, err := message.Parse(msg)
	if err != nil {
		return false
	}
	nonce, ok := message.Find[*message.Nonce](m.Payloads)
	if !ok || len(nonce.Data) < randomLen+MarkLen {
		return false
	}
	random, mark := nonce.Data[:len(nonce.Data)-MarkLen], nonce.Data[len(nonce.Data)-MarkLen:]
	good := false
	for n := number(now) - skew; n <= number(now)+skew; n++ {
		if hmac.Equal(mark, d.key.mark(n, h.InitiatorSPI, random)) {
			good = true
		}
	}
	return good && d.fresh(now, seen{[MarkLen]byte(mark), label}, source)
}

// fresh remembers a mark, and tells whether it is no replay.
func (d *Door) fresh(now time.Time, s seen, source string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e := d.order.Front(); e != nil; e = d.order.Front() {
		old := e.Value.(*entry)
		if d.order.Len() < maxMarks && now.Sub(old.first) < memory {
			break
		}
		d.order.Remove(e)
		delete(d.known, old.seen)
	}
	if e := d.known[s]; e != nil {
		old := e.Value.(*entry)
		return old.source == source && now.Sub(old.first) < repeats
	}
	d.known[s] = d.order.PushBack(&entry{s, source, now})
	return true
}

// Plausible tells whether first, which has to be at least 28 bytes, may be the
// beginning of a message that Opens opens to: the header of IKE_SA_INIT (RFC 7296,
// Section 3.1).
func Plausible(first []byte) bool {
	return len(first) >= 28 &&
		binary.BigEndian.Uint64(first) != 0 && binary.BigEndian.Uint64(first[8:]) == 0 &&
		first[17] == message.Version2 && message.ExchangeType(first[18]) == message.IKESAInit && first[19] == message.FlagInitiator &&
		binary.BigEndian.Uint32(first[20:]) == 0
}
