package netns

import (
	"fmt"
	"net/netip"
	"time"
)

// A Client is a host with a link to each access network. At any time some of
// the links are up, and one has the default route.
type Client struct {
	*Host
	n     *Network
	index int
	up    map[string]bool
	at    string // the access network that has the default route
}

// A Move says how a client changes its access network.
type Move struct {
	kind moveKind
	gap  time.Duration
}

type moveKind uint8

const (
	hard moveKind = iota
	soft
	gap
)

var (
	// Hard cuts the old network at the moment the new one is up.
	Hard = Move{kind: hard}
	// Soft takes the new network up and leaves the old one up too; the default
	// route changes. Client.Detach ends the old one.
	Soft = Move{kind: soft}
)

// Gap cuts the old network and takes the new one up after a while.
func Gap(d time.Duration) Move { return Move{kind: gap, gap: d} }

// client builds one client and attaches it to the first access network.
func (n *Network) client(i int, name string) *Client {
	n.t.Helper()
	c := &Client{Host: n.Host(name), n: n, index: i, up: map[string]bool{}}
	for _, a := range n.Access {
		n.Wire(
			Port{Host: c.Host, Dev: a.Name},
			Port{Host: a.Router, Dev: c.port(), Bridge: "lan"})
		c.Down(a.Name)
	}
	if len(n.Access) > 0 {
		c.Attach(n.Access[0].Name)
		c.Prefer(n.Access[0].Name)
	}
	return c
}

// port names the routers' ends of the client's links.
func (c *Client) port() string { return fmt.Sprintf("port%d", c.index) }

// At names the access network that has the default route; "" for none.
func (c *Client) At() string { return c.at }

// Addresses gives the client's own addresses in an access network.
func (c *Client) Addresses(access string) (as []netip.Addr) {
	c.lab.t.Helper()
	for _, p := range c.access(access).lan(10 + c.index) {
		as = append(as, p.Addr())
	}
	return as
}

// Attach takes the link to an access network up, with addresses and a default
// route that gives way to that of the preferred network.
func (c *Client) Attach(access string) {
	c.lab.t.Helper()
	a := c.access(access)
	c.Up(access)
	a.Router.ready(c.port())
	a.Router.ready("lan")
	c.ready(access)
	c.Address(access, a.lan(10+c.index)...)
	c.up[access] = true
	c.route(a, 600+a.index)
}

// Prefer gives the default route to a network that is up.
func (c *Client) Prefer(access string) {
	c.lab.t.Helper()
	c.route(c.access(access), 100)
	c.at = access
}

// Detach takes the link to an access network down and its addresses and routes
// away.
func (c *Client) Detach(access string) {
	c.lab.t.Helper()
	c.Down(access)
	delete(c.up, access)
	if c.at == access {
		c.at = ""
	}
}

// Move makes another access network the client's own.
func (c *Client) Move(to string, how Move) {
	c.lab.t.Helper()
	switch how.kind {
	case hard:
		c.Attach(to)
		c.detachAllBut(to)
	case gap:
		c.detachAllBut("")
		time.Sleep(how.gap) // the outage is real, as all of this network is
		c.Attach(to)
	case soft:
		c.Attach(to)
	}
	c.Prefer(to)
}

func (c *Client) detachAllBut(access string) {
	for up := range c.up {
		if up != access {
			c.Detach(up)
		}
	}
}

func (c *Client) access(name string) *Access {
	c.lab.t.Helper()
	for _, a := range c.n.Access {
		if a.Name == name {
			return a
		}
	}
	c.lab.t.Fatalf("no access network is called %q", name)
	return nil
}

// route adds default routes through an access network.
func (c *Client) route(a *Access, metric int) {
	c.lab.t.Helper()
	for _, p := range a.lan(1) {
		all := anyIPv4
		if p.Addr().Is6() {
			all = anyIPv6
		}
		c.Route(all, p.Addr(), a.Name, metric)
	}
}
