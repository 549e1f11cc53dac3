package netns

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// captureBuffer is how much the kernel keeps while the capture is behind; the
// frames of a few seconds.
const captureBuffer = 256 << 20

// A Capture listens to all frames of one device, in both directions, writes
// their beginnings to a pcap file and dissects them.
type Capture struct {
	*Dissector

	lab     *Lab
	socket  *os.File
	file    *os.File
	pcap    *pcapWriter
	done    chan struct{}
	stopped bool
}

// Capture starts to listen to a device for what goes to and comes from a
// server's port. It stops when the test ends, or by Stop.
func (h *Host) Capture(dev string, port uint16) *Capture {
	h.lab.t.Helper()
	c := &Capture{Dissector: NewDissector(port), lab: h.lab, done: make(chan struct{})}
	err := h.Do(func() (err error) { c.socket, err = openPacket(h.link(dev).Attrs().Index); return err })
	if err == nil {
		c.file, err = os.Create(h.lab.file(h.Name+"-"+dev, ".pcap"))
	}
	if err != nil {
		h.lab.t.Fatalf("capture %s at %s: %v", dev, h.Name, err)
	}
	c.pcap = newPcapWriter(c.file)
	go c.run()
	h.lab.t.Cleanup(func() { c.Stop() })
	return c
}

// Stop ends the capture after all frames so far have been dissected. It ends
// the test if the kernel had to drop some, as the capture then proves nothing.
func (c *Capture) Stop() {
	c.lab.t.Helper()
	if c.stopped {
		return
	}
	c.stopped = true
	_ = c.socket.SetReadDeadline(time.Now()) // wakes run, which reads what is left
	<-c.done
	raw, err := c.socket.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err != nil || s.Drops > 0 {
				c.lab.t.Errorf("the capture missed %d frames (%v)", s.Drops, err)
			}
		})
	}
	if err := errors.Join(err, c.pcap.flush(), c.file.Close(), c.socket.Close()); err != nil {
		c.lab.t.Errorf("end the capture: %v", err)
	}
}

func (c *Capture) run() {
	defer close(c.done)
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return
	}
	frame, oob := make([]byte, 1<<17), make([]byte, 128)
	// one reads one frame; it fails when there is none now, or ever again.
	one := func(fd uintptr) error {
		n, oobn, _, _, err := unix.Recvmsg(int(fd), frame, oob, 0)
		if err != nil {
			return err
		}
		at := stamp(oob[:oobn])
		c.pcap.frame(at, frame[:n])
		c.Frame(at, frame[:n])
		return nil
	}
	for {
		var failed error
		err := raw.Read(func(fd uintptr) bool { failed = one(fd); return failed != unix.EAGAIN })
		if err != nil || failed != nil && failed != unix.ENETDOWN {
			break
		}
	}
	_ = raw.Control(func(fd uintptr) {
		for one(fd) == nil {
		}
	})
}

// stamp reads the time at which the kernel saw a frame.
func stamp(oob []byte) time.Time {
	ms, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range ms {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS &&
				len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
				ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
				return time.Unix(ts.Unix())
			}
		}
	}
	return time.Now()
}

// openPacket opens a socket for all frames of a device of the current namespace.
func openPacket(index int) (*os.File, error) {
	// Protocol 0 until bound: no frame of another device gets in.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "packet socket"), nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
