// Package load makes the traffic that measurements send through a proxy: the
// target that serves, swallows or echoes bytes, the clients that come to it by
// SOCKS5, and a SOCKS5 relay without any tunnel, which is the limit of what a
// proxy in user space can reach.
//
// Everything here does plain reads and writes in user space, so what the load
// costs is the same for every proxy between its ends.
package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Mode is what a connection asks of the target.
type Mode byte

// The modes of a connection.
const (
	Down Mode = 'd' // the target sends the number of bytes asked for
	Up   Mode = 'u' // the target swallows blocks and says how many bytes came
	Echo Mode = 'e' // the target sends back what it gets
)

// String names the mode for people.
func (m Mode) String() string {
	switch m {
	case Down:
		return "down"
	case Up:
		return "up"
	case Echo:
		return "echo"
	}
	return fmt.Sprintf("Mode(%d)", byte(m))
}

// BlockSize is the length of a block in bytes; transfers are whole blocks.
const BlockSize = 64 << 10

// bufferSize is how much is read or written at a time, a multiple of BlockSize.
const bufferSize = 4 * BlockSize

// MessageSize is the length of a ping-pong message in bytes.
const MessageSize = 64

// The first byte of a block tells whether another one follows.
const (
	more = 'm'
	last = 'l'
)

var (
	errPattern = errors.New("the bytes that came are not those that were sent")
	errRequest = errors.New("not a request to the target")
)

// requestSize is the length of what a client sends first: magic (3 bytes),
// mode (1), bytes wanted (8, big endian).
const requestSize = 12

const magic = "gwb"

func appendRequest(b []byte, m Mode, count uint64) []byte {
	b = append(append(b, magic...), byte(m))
	return binary.BigEndian.AppendUint64(b, count)
}

func readRequest(r io.Reader) (Mode, uint64, error) {
	var b [requestSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	m := Mode(b[3])
	if string(b[:3]) != magic || m != Down && m != Up && m != Echo {
		return 0, 0, errRequest
	}
	return m, binary.BigEndian.Uint64(b[4:]), nil
}

// pattern is what follows the first byte of each block.
func pattern(i int) byte { return byte(i*7 + i>>8) }

// newBuffer gives bufferSize bytes of blocks that say more.
func newBuffer() []byte {
	b := make([]byte, bufferSize)
	for i := range b {
		if at := i % BlockSize; at == 0 {
			b[i] = more
		} else {
			b[i] = pattern(at)
		}
	}
	return b
}

// blocks rounds a number of bytes up to whole blocks, at least one.
func blocks(n uint64) uint64 {
	return max(1, (n+BlockSize-1)/BlockSize)
}

// A checker follows a stream of blocks. It looks at the first and the last byte
// of each read only: a proxy that mixes up or loses bytes is caught with little
// cost, and the cost is the same for all.
type checker struct {
	offset uint64
	end    uint64 // offset behind the last block, 0 while unknown
}

// take counts bytes that came and tells whether the last block is complete.
func (c *checker) take(b []byte) (done bool, err error) {
	if len(b) == 0 {
		return false, nil
	}
	for _, i := range []int{0, len(b) - 1} {
		at := int((c.offset + uint64(i)) % BlockSize)
		if at == 0 && b[i] != more && b[i] != last || at != 0 && b[i] != pattern(at) {
			return false, fmt.Errorf("at byte %d: %w", c.offset+uint64(i), errPattern)
		}
	}
	// The flags of the blocks that begin in b.
	for at := (BlockSize - c.offset%BlockSize) % BlockSize; at < uint64(len(b)); at += BlockSize {
		if b[at] == last && c.end == 0 {
			c.end = c.offset + at + BlockSize
		}
	}
	c.offset += uint64(len(b))
	if c.end != 0 && c.offset > c.end {
		return false, fmt.Errorf("%d bytes after the last block: %w", c.offset-c.end, errPattern)
	}
	return c.end != 0 && c.offset == c.end, nil
}
