package tunnel

import (
	"encoding/binary"
	"time"
)

// Options of TCP: RFC 9293, Section 3.1, and RFC 7323, Section 3.2.
const (
	optionEnd         = 0
	optionNop         = 1
	optionWindowScale = 3
	optionTimestamps  = 8
	timestampsLength  = 10
)

// Delay takes a wait out of what TCP will measure: an IP packet that was held
// back, or is sent again after a time, gets timestamps (RFC 7323) that are
// later by d, in whole milliseconds, as stacks count them. Otherwise an outage
// looks to both ends like a round trip of its length, and their retransmission
// timers would be slow for long after it. The checksum is made right. Packets
// that are not TCP or have no timestamps stay as they are.
//
// To be sent in order with what the stack has made since, all packets that
// waited have to be treated alike.
func Delay(pkt []byte, d time.Duration) {
	ms := uint32(d.Milliseconds())
	if ms == 0 {
		return
	}
	var tcp []byte
	switch {
	case len(pkt) >= ipv4Header && pkt[0]>>4 == 4 && pkt[ipv4Protocol] == protocolTCP:
		if binary.BigEndian.Uint16(pkt[ipv4Fragment:])&0x3fff != 0 {
			return
		}
		tcp = pkt[min(len(pkt), max(ipv4Header, int(pkt[0]&0xf)*4)):]
	case len(pkt) >= ipv6Header && pkt[0]>>4 == 6 && pkt[ipv6NextHeader] == protocolTCP:
		tcp = pkt[ipv6Header:]
	}
	if len(tcp) < tcpHeader {
		return
	}
	end := min(len(tcp), int(tcp[tcpOffset]>>4)*4)
	for i := tcpHeader; i < end; {
		switch tcp[i] {
		case optionEnd:
			return
		case optionNop:
			i++
			continue
		}
		if i+1 >= end || tcp[i+1] < 2 || i+int(tcp[i+1]) > end {
			return
		}
		if tcp[i] == optionTimestamps && tcp[i+1] == timestampsLength {
			later(tcp, i+2, ms)
			// "The TSecr field is valid if the ACK bit is set", RFC 7323, Section
			// 3.2; stacks take zero for none.
			if echo := i + 6; tcp[tcpFlags]&flagACK != 0 && binary.BigEndian.Uint32(tcp[echo:]) != 0 {
				later(tcp, echo, ms)
			}
			return
		}
		i += int(tcp[i+1])
	}
}

// later adds ms to the number at tcp[at:] and what that changes to the
// checksum, RFC 1624, Section 3.
func later(tcp []byte, at int, ms uint32) {
	old := binary.BigEndian.Uint32(tcp[at:])
	now := old + ms
	binary.BigEndian.PutUint32(tcp[at:], now)
	sum := uint64(^binary.BigEndian.Uint16(tcp[tcpChecksum:]))
	if at%2 != 0 {
		// The bytes lie across the words that are summed up.
		sum += swapped(^old) + swapped(now)
	} else {
		sum += words(^old) + words(now)
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], ^uint16(sum))
}

func words(x uint32) uint64 { return uint64(x>>16) + uint64(x&0xffff) }

func swapped(x uint32) uint64 {
	return uint64(x>>24) + uint64(x>>8&0xffff) + uint64(x&0xff)<<8
}
