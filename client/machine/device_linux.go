package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/tunnel"
)

// struct virtio_net_hdr of linux/virtio_net.h, in the host's byte order, before
// each packet.
const (
	vnetHeader = 10

	vnetNeedsChecksum = 1 // flags
	vnetTCP4          = 1 // gso_type
	vnetTCP6          = 4
)

// A device is a TUN device. It ends with the process.
type device struct {
	file *os.File
	name string
}

// openDevice makes a TUN device over which segments of up to 64 KiB pass whole,
// with checksums that nobody has to make.
func openDevice(name string) (*device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%w: it has no /dev/net/tun (in a container it must be passed in; else load the module tun)", ErrUnsupported)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open /dev/net/tun: %w", ErrNotPermitted)
	case err != nil:
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("device name %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		switch {
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EINVAL):
			return nil, fmt.Errorf("there is a device %s already: stop the program that made it, or name another one", name)
		case errors.Is(err, unix.EPERM):
			return nil, fmt.Errorf("make the device %s: %w", name, ErrNotPermitted)
		}
		return nil, fmt.Errorf("make the device %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: the device %s takes no large segments: %w", ErrUnsupported, name, err)
	}
	return &device{file: os.NewFile(uintptr(fd), "/dev/net/tun"), name: name}, nil
}

func (d *device) close() error { return d.file.Close() }

// run hands packets to the stack until the device is closed.
func (d *device) run(input func([][]byte)) error {
	b := make([]byte, vnetHeader+maxDatagram)
	batch := make([][]byte, 1)
	for {
		n, err := d.file.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from %s: %w", d.name, err)
		}
		if n <= vnetHeader {
			continue
		}
		// What the header says is of no use here: the stack takes segments of
		// any size, and does not verify checksums.
		batch[0] = b[vnetHeader:n]
		input(batch)
	}
}

var packets = sync.Pool{New: func() any { b := make([]byte, 0, vnetHeader+maxDatagram); return &b }}

// output writes a packet to the device. It does not wait: what the system cannot
// take it drops.
func (d *device) output(p tunnel.Packet) {
	defer p.Release()
	buf := packets.Get().(*[]byte)
	defer packets.Put(buf)
	b, o := p.AppendPartial((*buf)[:vnetHeader])
	h := b[:vnetHeader]
	clear(h)
	if o.ChecksumStart > 0 {
		h[0] = vnetNeedsChecksum
		binary.NativeEndian.PutUint16(h[6:], uint16(o.ChecksumStart))
		binary.NativeEndian.PutUint16(h[8:], uint16(o.ChecksumOffset))
	}
	if o.Segment > 0 {
		h[1] = vnetTCP4
		if o.V6 {
			h[1] = vnetTCP6
		}
		binary.NativeEndian.PutUint16(h[2:], uint16(o.Header))
		binary.NativeEndian.PutUint16(h[4:], uint16(o.Segment))
	}
	*buf = b
	_, _ = d.file.Write(b)
}
