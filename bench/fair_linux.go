package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/godwit-net/godwit/bench/load"
	"github.com/godwit-net/godwit/bench/report"
	"github.com/godwit-net/godwit/lab/netns"
)

// fairAhead is how long each of the others is there before the next one comes, the
// one that is measured as the last.
const fairAhead = time.Second

// endless is more than any transfer moves in its time.
const endless = "1000000000000"

// fair measures what one stream takes of a link that others fill, outside of the
// tunnel or in one of their own, in either direction and before several queues.
func (b *bench) fair(ctx context.Context, p *peer, tests []report.Test) {
	values, note, err := b.shares(ctx, p)
	b.add(p, report.Fair, values, note, err)
}

func (b *bench) shares(ctx context.Context, p *peer) (values map[report.Metric]float64, note string, err error) {
	if err := b.need(ctx, &b.shared, "shared", lossyTrip); err != nil {
		return nil, "", err
	}
	values = make(map[report.Metric]float64)
	for _, m := range report.FairCases() {
		if m.Beside == report.Itself && p.another == nil {
			continue
		}
		product := lossyRate * lossyTrip.Seconds()
		b.shared.relay.SetFaults(netns.Faults{Rate: lossyRate, Queue: int(m.Queue * product)})
		share, use, err := b.share(ctx, p, m)
		switch {
		case ctx.Err() != nil:
			return nil, "", ctx.Err()
		case errors.Is(err, errNoCongestion):
			note += fmt.Sprintf("%v: %v. ", m.Metric(), err)
		case err != nil:
			return nil, "", fmt.Errorf("%s beside %s: %w", m.Do, m.Beside, err)
		default:
			values[m.Metric()], values[m.Use()] = share, use
		}
	}
	if len(values) == 0 {
		return nil, "", errors.New(note)
	}
	return values, note, nil
}

var errNoCongestion = errors.New("namespaces may not use this congestion control (net.ipv4.tcp_allowed_congestion_control)")

// share gives what the peer takes, in parts of what would be fair, and what all take
// together of the link.
func (b *bench) share(ctx context.Context, p *peer, m report.FairCase) (share, use float64, err error) {
	s, err := open(ctx, b.shared, p, b.in, b.profiles, b.tag("fair"))
	if err != nil {
		return 0, 0, err
	}
	defer s.close()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w%s", err, s.said())
		}
	}()
	kinds := []string{m.Beside}
	if m.Beside == report.Both {
		kinds = []string{report.Cubic, report.BBR}
	}
	// All end at about the same time.
	lasts := b.fairTime + time.Duration(len(kinds))*fairAhead
	others := make([]load.Transfer, len(kinds))
	ended := make(chan error, len(kinds))
	running := 0
	wait := func() (err error) {
		for ; running > 0; running-- {
			err = errors.Join(err, <-ended)
		}
		return err
	}
	for i, kind := range kinds {
		args := []string{"-do", m.Do, "-bytes", endless, "-limit", lasts.String()}
		if kind == report.Itself {
			proxy, err := p.another(ctx, s)
			if err != nil {
				return 0, 0, err
			}
			args = append(args, "-proxy", proxy)
		} else {
			if err := b.shared.senders(kind); err != nil {
				return 0, 0, errors.Join(err, wait())
			}
			args = append(args, "-direct")
		}
		running++
		go func() { ended <- s.load(ctx, &others[i], args...) }()
		lasts -= fairAhead
		if err := sleep(ctx, fairAhead); err != nil {
			return 0, 0, errors.Join(err, wait())
		}
	}
	var own load.Transfer
	err = s.load(ctx, &own, "-do", m.Do, "-bytes", endless, "-limit", b.fairTime.String())
	if err = errors.Join(err, wait()); err != nil {
		return 0, 0, err
	}
	// What the others had before is not known, but that they had the link alone.
	beside := -lossyRate * fairAhead.Seconds() * float64(len(kinds))
	for _, t := range others {
		beside += float64(t.Bytes)
	}
	sum := float64(own.Bytes) + max(beside, 0)
	if own.Bytes == 0 || own.Seconds <= 0 {
		return 0, 0, errors.New("nothing came in time")
	}
	return float64(1+len(kinds)) * float64(own.Bytes) / sum, sum / b.fairTime.Seconds() / lossyRate, nil
}

// senders sets the congestion control that connections have which begin from now on.
func (n *network) senders(congestion string) error {
	return within(func() error {
		for _, h := range []*netns.Host{n.client, n.target} {
			path := "/proc/sys/net/ipv4/tcp_congestion_control"
			if err := h.Do(func() error { return os.WriteFile(path, []byte(congestion), 0o644) }); err != nil {
				return fmt.Errorf("%s: %w (%w)", congestion, errNoCongestion, err)
			}
		}
		return nil
	})
}

// allowed is where the kernel keeps what namespaces may use; they have none of their
// own.
const allowed = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"

// allow lets namespaces use these congestion controls as long as the program runs, and
// gives what takes that back. What the kernel does not have is left to who needs it.
func allow(names ...string) (undo func(), err error) {
	before, err := os.ReadFile(allowed)
	if err != nil {
		return func() {}, err
	}
	now := strings.Fields(string(before))
	for _, name := range names {
		if name != "" && !slices.Contains(now, name) {
			now = append(now, name)
		}
	}
	if len(now) == len(strings.Fields(string(before))) {
		return func() {}, nil
	}
	if err := os.WriteFile(allowed, []byte(strings.Join(now, " ")), 0o644); err != nil {
		return func() {}, fmt.Errorf("allow %s in namespaces: %w", strings.Join(names, " and "), err)
	}
	return func() { _ = os.WriteFile(allowed, before, 0o644) }, nil
}
