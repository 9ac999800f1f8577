// Package ca is who is who in a cluster: the cluster's certificate authority, the identity of one node and
// the join token that lets a new node in.
//
// One cluster has one Authority, an ECDSA P-256 key whose self-signed certificate carries the cluster's id.
// It signs a certificate for each node with the name spiffe://<cluster>/<role>/<node-id>. Names come from the
// leader, never from the request of the joiner, who supplies a public key and nothing else.
//
// A JoinToken carries a pin, the hash of the authority's public key, so that the joiner can recognise the
// cluster before it sends its secret. The pin is of the key, not of the certificate: the certificate can be
// issued again without making tokens invalid.
//
// Every voter must be able to enrol joiners after a change of leader, so the authority's key is shared among
// voters. Seal encrypts it under a ClusterSecret; the sealed bytes may lie in the replicated store, the secret
// must not: it is handed from voter to voter over mutual TLS and kept in a file of mode 0600.
//
// Why not otherwise: a key per voter with an intermediate certificate each would keep the root offline, but a
// lost voter's intermediate would then need revocation lists. Short node certificates and a revocation callback
// that reads the replicated state (Identity.Revoked) do the same with no list to distribute. A public-key
// library beyond crypto/x509 would bring more code than it saves.
package ca
