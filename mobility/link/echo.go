package link

import (
	"encoding/binary"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/transports"
)

// An echo asks the other end for a sign of life, or is that sign. It is what a dummy
// packet of ESP holds (RFC 4303, Section 2.6), as a report is. A request may be padded
// to any size. All numbers are big-endian:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Type = 0x92  |  Version = 1  |  0: request, 1: answer        |
//	+---------------+---------------+-------------------------------+
//	|                number, chosen by who asks                     |
//	+---------------------------------------------------------------+
//	|  when to answer: seconds after the request; 0: at once        |
//	+---------------------------------------------------------------+
type echo struct {
	answer bool
	number uint32
	after  time.Duration // whole seconds
}

const (
	echoType    = 0x92
	echoVersion = 1
	echoLength  = 12
	// maxEchoAfter bounds how late an answer may be asked for.
	maxEchoAfter = 15 * time.Minute
)

func (e echo) append(b []byte) []byte {
	b = append(b, echoType, echoVersion, 0, 0)
	if e.answer {
		b[len(b)-1] = 1
	}
	b = binary.BigEndian.AppendUint32(b, e.number)
	return binary.BigEndian.AppendUint32(b, uint32(e.after/time.Second))
}

// parseEcho reads what a dummy packet holds; ok is false if that is no echo. What
// comes behind it is padding.
func parseEcho(b []byte) (e echo, ok bool) {
	if len(b) < echoLength || b[0] != echoType || b[1] != echoVersion || b[2] != 0 || b[3] > 1 {
		return echo{}, false
	}
	after := time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Second
	if after > maxEchoAfter {
		return echo{}, false
	}
	return echo{answer: b[3] == 1, number: binary.BigEndian.Uint32(b[4:]), after: after}, true
}

// echoed takes an echo that came by c, in an ESP packet of size bytes.
func (l *Link) echoed(e echo, c transports.Carrier, size int) {
	switch {
	case e.answer && e.number&question != 0:
		if l.c.Answer != nil {
			l.c.Answer(e.number &^ question)
		}
	case e.answer:
		l.mtu.answered(e.number)
	case e.after > 0:
		l.mtu.answerLater(e)
	case e.number&question != 0:
		l.sendNote(echo{answer: true, number: e.number}.append(nil), 0)
	default:
		l.mtu.received(c, size)
		l.sendNote(echo{answer: true, number: e.number}.append(nil), 0)
	}
}

// question marks the numbers of questions; probes have the others.
const question = 1 << 31

// Ask has the other end answer after a pause of whole seconds, 15 minutes at most, by
// the way that it uses then; 0 for at once. Of several questions that wait there the
// last is answered. The number has at most 31 bits.
func (l *Link) Ask(number uint32, pause time.Duration) {
	_ = l.sendNote(echo{number: number | question, after: pause}.append(nil), 0) // what is lost is not answered
}

// Quiet is how long nothing has left by the link.
func (l *Link) Quiet() time.Duration { return clock.Since(l.life.out.Load()) }

// sendNote sends a dummy packet that holds note by the carrier in use, padded to
// padTo bytes if that is more. It tells what the carrier said.
func (l *Link) sendNote(note []byte, padTo int) error {
	out, p := l.outbound.Load(), l.path.Load()
	if out == nil || p == nil {
		return ErrNoSA
	}
	return l.sendNoteBy(p, note, padTo)
}
