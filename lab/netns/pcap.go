package netns

import (
	"bufio"
	"encoding/binary"
	"io"
	"time"
)

// snapLength is how much of a frame a capture file keeps: all headers, and
// enough of ESP and IKE to tell them apart.
const snapLength = 128

// A pcapWriter writes a capture file of Ethernet frames, as libpcap's
// pcap-savefile(5) describes them, with times in nanoseconds.
type pcapWriter struct{ w *bufio.Writer }

func newPcapWriter(w io.Writer) *pcapWriter {
	p := &pcapWriter{bufio.NewWriterSize(w, 1<<16)}
	var h []byte
	h = binary.LittleEndian.AppendUint32(h, 0xa1b23c4d) // magic number
	h = binary.LittleEndian.AppendUint16(h, 2)          // major version
	h = binary.LittleEndian.AppendUint16(h, 4)          // minor version
	h = binary.LittleEndian.AppendUint64(h, 0)          // reserved
	h = binary.LittleEndian.AppendUint32(h, snapLength)
	h = binary.LittleEndian.AppendUint32(h, 1) // LINKTYPE_ETHERNET
	_, _ = p.w.Write(h)                        // flush reports the error
	return p
}

func (p *pcapWriter) frame(at time.Time, b []byte) {
	kept := min(len(b), snapLength)
	var h [16]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(at.Unix()))
	binary.LittleEndian.PutUint32(h[4:], uint32(at.Nanosecond()))
	binary.LittleEndian.PutUint32(h[8:], uint32(kept))
	binary.LittleEndian.PutUint32(h[12:], uint32(len(b)))
	_, _ = p.w.Write(h[:])
	_, _ = p.w.Write(b[:kept])
}

func (p *pcapWriter) flush() error { return p.w.Flush() }
