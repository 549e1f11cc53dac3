package site

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// maxNewcomers bounds the connections on which nothing has been asked yet. The one
// that has waited longest makes room for a new one, so that those who say nothing
// keep nobody out.
const maxNewcomers = 4096

// newcomers are the connections on which nothing has been asked yet.
type newcomers struct {
	mu    sync.Mutex
	order list.List // of net.Conn, the oldest first
	at    map[net.Conn]*list.Element
}

// state is told by http.Server what becomes of a connection.
func (n *newcomers) state(c net.Conn, state http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if state != http.StateNew {
		if e := n.at[c]; e != nil {
			n.order.Remove(e)
			delete(n.at, c)
		}
		return
	}
	if n.at == nil {
		n.at = map[net.Conn]*list.Element{}
	}
	if n.order.Len() >= maxNewcomers {
		oldest := n.order.Remove(n.order.Front()).(net.Conn)
		delete(n.at, oldest)
		below(oldest).Close()
	}
	n.at[c] = n.order.PushBack(c)
}

// below gives the socket, as closing TLS might wait for a peer that does not read.
func below(c net.Conn) net.Conn {
	for {
		n, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = n.NetConn()
	}
}
