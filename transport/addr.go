package transport

import (
	"fmt"
	"net"
	"strconv"
)

// address is a host:port as a net.Addr; the host may be a name.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// advertised is what others dial: as the user said, completed from what was bound.
func advertised(want string, bound *net.TCPAddr) (string, error) {
	port := strconv.Itoa(bound.Port)
	if want == "" {
		return net.JoinHostPort(hostOf(bound), port), nil
	}
	host, p, err := net.SplitHostPort(want)
	if err != nil {
		host, p = want, port // a host alone
	}
	if p == "0" || p == "" {
		p = port
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return "", fmt.Errorf("advertise address %q: others cannot dial it; give a host name or an IP address of this machine", want)
	}
	if _, err := strconv.ParseUint(p, 10, 16); err != nil {
		return "", fmt.Errorf("advertise address %q: port %q is not a number below 65536", want, p)
	}
	return net.JoinHostPort(host, p), nil
}

// hostOf is the bound IP address, or when that is all interfaces the first that looks reachable.
func hostOf(bound *net.TCPAddr) string {
	if !bound.IP.IsUnspecified() {
		return bound.IP.String()
	}
	best := "127.0.0.1"
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.To4() == nil || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.IsPrivate() { // boxes in one place share a private network; a public address may be filtered
			return n.IP.String()
		}
		if best == "127.0.0.1" {
			best = n.IP.String()
		}
	}
	return best
}
