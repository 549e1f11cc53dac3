package link

import (
	"encoding/binary"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

// A report tells the sender of data what has arrived, a few times in a round
// trip. It is what a dummy packet of ESP holds (RFC 4303, Section 2.6), so a
// peer that knows nothing of reports discards it. All numbers are big-endian:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Type = 0x91  |  Version = 1  |     length of Missing         |
//	+---------------+---------------+-------------------------------+
//	|           SPI of the SA that the packets came on              |
//	+---------------------------------------------------------------+
//	|                                                               |
//	+           highest sequence number that has arrived            +
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                                                               |
//	+          bytes of ESP packets that the link received          +
//	|                                                               |
//	+---------------------------------------------------------------+
//	|   when the highest arrived: microseconds of a running clock   |
//	+---------------------------------------------------------------+
//	|   how long that is ago, in microseconds                       |
//	+---------------------------------------------------------------+
//	|   Missing: bit i, from the most significant of the first      |
//	|   byte, is set if the highest but 1 + i has not arrived ...   |
//	+---------------------------------------------------------------+
//
// Missing is that of a registration, of no more than 142 bytes.
type report struct {
	state   regmsg.ReceiveState
	bytes   uint64
	arrived uint32        // wraps around
	ago     time.Duration // at most about an hour
}

const (
	reportType    = 0x91
	reportVersion = 1
	reportHeader  = 32
	maxMissing    = regmsg.MaxMissing
)

func (r *report) append(b []byte) []byte {
	missing := r.state.Missing[:min(len(r.state.Missing), maxMissing)]
	b = append(b, reportType, reportVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(missing)))
	b = binary.BigEndian.AppendUint32(b, r.state.SPI)
	b = binary.BigEndian.AppendUint64(b, r.state.Highest)
	b = binary.BigEndian.AppendUint64(b, r.bytes)
	b = binary.BigEndian.AppendUint32(b, r.arrived)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(r.ago.Microseconds(), 0), 1<<32-1)))
	return append(b, missing...)
}

// parseReport reads what a dummy packet holds; ok is false if that is no
// report. Missing is a part of b. What comes behind it is padding.
func parseReport(b []byte) (r report, ok bool) {
	if len(b) < reportHeader || b[0] != reportType || b[1] != reportVersion {
		return report{}, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > maxMissing || len(b) < reportHeader+n {
		return report{}, false
	}
	r.state = regmsg.ReceiveState{
		SPI: binary.BigEndian.Uint32(b[4:]), Highest: binary.BigEndian.Uint64(b[8:]),
		Missing: b[reportHeader : reportHeader+n : reportHeader+n],
	}
	r.bytes = binary.BigEndian.Uint64(b[16:])
	r.arrived = binary.BigEndian.Uint32(b[24:])
	r.ago = time.Duration(binary.BigEndian.Uint32(b[28:])) * time.Microsecond
	return r, true
}
