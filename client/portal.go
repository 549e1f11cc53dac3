package client

import (
	"errors"
	"log/slog"
	"strings"
	"unicode"

	"github.com/godwit-net/godwit/transports"
)

// A portal is what is known of somebody who answers in the server's place. That
// is evidence, not an error: streams wait, all encapsulations are tried again as
// they would be without it, and the first answer of the server ends it.
type portal struct {
	evidence string
	url      string // of the page to look at; empty if none was named
}

// PortalStatus is what status shows of a captive portal.
type PortalStatus struct {
	Evidence string `json:"evidence"`      // what was seen, in words
	URL      string `json:"url,omitempty"` // of the page to look at
}

// suspect looks for a portal in the error of an attempt to open a carrier. It
// says so once for each network.
func (c *Client) suspect(err error) {
	var i transports.Interception
	if !errors.As(err, &i) {
		return
	}
	if r, ok := i.(interface{ Refusal() bool }); ok && r.Refusal() {
		return // of a proxy that does not know such requests, and shows no page
	}
	before := c.portal
	c.portal = &portal{evidence: printable(i.Error()), url: i.Interception()}
	if before == nil {
		page, _, _ := strings.Cut(c.portal.url, "?") // what follows may name the user
		c.log.Warn("somebody else answers in the server's place; streams wait", slog.String("evidence", c.portal.evidence), slog.String("page", page))
	} else if c.portal.url == "" {
		c.portal.url = before.url
	}
}

// maxEvidence bounds the words, in bytes; a certificate may hold any names.
const maxEvidence = 200

// printable makes a text from the network fit for a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s[:min(len(s), maxEvidence)])
	return s
}

// parked holds while a portal keeps the server out of reach.
func (c *Client) parked() bool {
	return c.portal != nil && (!c.connected() || c.registrar != nil && (c.registrar.Registering() || c.registrar.Current().ID == 0))
}
