package netwatch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// groups are the multicast groups of rtnetlink(7) that tell of an attachment.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_NEIGH

// open watches by netlink. The socket is in Go's own poller, so closing it ends
// the goroutine that reads it.
func open(logger *slog.Logger) (*Watcher, error) {
	f, err := subscribe()
	if err != nil {
		logger.Warn("the system does not tell of changes; looking every two seconds", slog.Any("err", err))
		return poll(pollInterval, look), nil
	}
	return start(func(w *Watcher) { read(w, f, logger) }, f.Close), nil
}

func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink groups: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

func read(w *Watcher, f *os.File, logger *slog.Logger) {
	b := make([]byte, 64<<10)
	for {
		n, err := f.Read(b)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// "the application should detect ENOBUFS and resynchronize", netlink(7).
			w.tell(ReasonOverflow)
			continue
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			logger.Error("no more news of changes", slog.Any("err", err))
			return
		}
		if reason := reasonOf(b[:n]); reason != "" {
			w.tell(reason)
		}
	}
}

// reasonOf names the first change in a datagram; empty if there is none.
func reasonOf(b []byte) string {
	ms, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return ReasonOverflow // cut off or strange: something did happen
	}
	for _, m := range ms {
		switch m.Header.Type {
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			return ReasonAddress
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			return ReasonRoute
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			return ReasonLink
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			return ReasonNeighbour
		}
	}
	return ""
}
