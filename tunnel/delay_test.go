package tunnel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// tcpPacket makes an IPv4 TCP packet with complete checksums.
func tcpPacket(flags byte, options, payload []byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, optionEnd)
	}
	n := ipv4Header + tcpHeader + len(options)
	b := make([]byte, n, n+len(payload))
	b[0], b[8], b[ipv4Protocol] = 0x45, 64, protocolTCP
	copy(b[ipv4Source:], netip.MustParseAddr("10.77.0.2").AsSlice())
	copy(b[ipv4Source+4:], netip.MustParseAddr("10.77.0.1").AsSlice())
	tcp := b[ipv4Header:]
	tcp[tcpOffset] = byte((tcpHeader + len(options)) / 4 << 4)
	tcp[tcpFlags] = flags
	copy(tcp[tcpHeader:], options)
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[ipv4Length:], uint16(len(b)))
	checksum.Put(b[ipv4Header+tcpChecksum:], ^tcpSum(b))
	return b
}

// tcpSum is the sum over the pseudo-header and the segment.
func tcpSum(b []byte) uint16 {
	sum := checksum.Checksum(b[ipv4Source:ipv4Header], 0)
	sum = checksum.Combine(sum, protocolTCP)
	sum = checksum.Combine(sum, uint16(len(b)-ipv4Header))
	return checksum.Checksum(b[ipv4Header:], sum)
}

func TestDelay(t *testing.T) {
	stamps := func(val, echo uint32) []byte {
		b := []byte{optionTimestamps, timestampsLength}
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, val), echo)
	}
	for _, tt := range []struct {
		name      string
		flags     byte
		options   []byte
		val, echo uint32 // as they come out
	}{
		{"usual", flagACK, append([]byte{optionNop, optionNop}, stamps(1000, 2000)...), 6000, 7000},
		{"at an odd place", flagACK, append([]byte{optionNop}, stamps(1000, 2000)...), 6000, 7000},
		{"after another option", flagACK, append([]byte{2, 4, 5, 0xb4}, stamps(1000, 2000)...), 6000, 7000},
		{"wraps around", flagACK, stamps(1<<32-1, 1<<32-5000), 4999, 0},
		{"no acknowledgement", flagSYN, stamps(1000, 2000), 6000, 2000},
		{"no echo", flagACK, stamps(1000, 0), 6000, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tcpPacket(tt.flags, tt.options, []byte("data"))
			want := tcpPacket(tt.flags, bytes.Replace(tt.options, tt.options[bytes.IndexByte(tt.options, optionTimestamps):], stamps(tt.val, tt.echo), 1), []byte("data"))
			Delay(b, 5*time.Second+900*time.Microsecond)
			if got := tcpSum(b); got != 0xffff {
				t.Errorf("the checksum is wrong: sum %#x", got)
			}
			if !bytes.Equal(b, want) {
				t.Errorf("got\n%x, want\n%x", b, want)
			}
		})
	}
}

// Whatever else it is shown, it leaves as it is.
func TestDelayLeavesOthersAlone(t *testing.T) {
	stamped := tcpPacket(flagACK, append([]byte{optionNop, optionNop}, optionTimestamps, timestampsLength, 0, 0, 0, 1, 0, 0, 0, 1), nil)
	fragment := bytes.Clone(stamped)
	fragment[ipv4Fragment+1] = 1
	udp := bytes.Clone(stamped)
	udp[ipv4Protocol] = protocolUDP
	for name, b := range map[string][]byte{
		"no options":       tcpPacket(flagACK, nil, []byte("data")),
		"option too long":  tcpPacket(flagACK, []byte{optionTimestamps, 200, 0, 0}, nil),
		"option too short": tcpPacket(flagACK, []byte{3, 0, 0, 0, optionTimestamps, timestampsLength, 0, 0, 0, 1, 0, 0, 0, 1}, nil),
		"after the end":    tcpPacket(flagACK, []byte{optionEnd, optionTimestamps, timestampsLength, 0, 0, 0, 1, 0, 0, 0, 1}, nil),
		"fragment":         fragment,
		"UDP":              udp,
		"empty":            {},
	} {
		got := bytes.Clone(b)
		Delay(got, time.Second)
		if !bytes.Equal(got, b) {
			t.Errorf("%s: changed to\n%x from\n%x", name, got, b)
		}
	}
	for n := range stamped {
		Delay(bytes.Clone(stamped[:n]), time.Second)
	}
}
