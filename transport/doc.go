// Package transport is the only way in and out of a node: one TCP listener (Mux) and one dialer (Dialer), both
// mutual TLS 1.3, and the glue that lets gRPC, Raft, gossip and the all-reduce streams use them.
//
//	                              TCP port
//	                                 |  TLS 1.3 handshake, at most 5 s, in a goroutine of its own
//	   client certificate of this cluster                 none, or one that has ended: doors
//	h2     lorad-raft/1  lorad-gossip/1  lorad-reduce/1 | lorad-enrol/1  lorad-renew/1  lorad-people/1  http/1.1
//	gRPC   RaftLayer     Gossip          net.Conn       | gRPC           gRPC           gRPC            net/http
//
// Who comes in by a door is a guest: guests are few at once and have little time, until they have shown who they are
// (Conn.Vouch). What they may call is not decided here. A joiner serves its port before it is a node, for one question:
// whether it is reached where it says (Bound, Reach).
//
// A rented machine often has one TCP port and no UDP, hence one port for all, and gossip over TCP. The protocol
// is named in the handshake (ALPN): a connection reaches a protocol's Listener only when its peer was verified,
// so no protocol has to know about certificates. Which roles may speak which protocol is one table (roles).
//
// TLS 1.3 lets a client finish its handshake before the server has judged the client's certificate. A server
// therefore sends one byte when it has (ready); Dial waits for it, so that a refusal is an error of Dial and
// not of the first read a minute later. gRPC needs no such byte: an HTTP/2 server speaks first anyway.
//
// Every error of dialing is an *Error with a Kind, to be mapped to an exit code, and ends with what to do.
//
// Why not otherwise: sniffing the first bytes (cmux) would put an unauthenticated parser in front of the
// handshake; a multiplexer over one connection (yamux) would make a checkpoint's bytes delay a heartbeat, which
// separate TCP connections do not. The owner of a machine talks to the local node over a Unix socket, because
// the file system already knows who the owner is.
package transport
