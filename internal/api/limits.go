package api

// MaxInitPeers is the largest number of nodes that --init-peers may require before a range is first divided.
//
// It is half of the acceptors that a node remembers (paxos.MaxAcceptors). A larger number could stop the first division
// in a network with more nodes than a node remembers: a node that remembers nearly that many rejects a message which
// names more new acceptors than it has room for, so it may never count the last few. Half also lets two nodes that
// remember different acceptors agree: with this number required, the quorums of any two sets of MaxAcceptors nodes
// intersect in networks of fewer than 1.5 * MaxAcceptors nodes.
//
// Whatever writes the flag, such as `weft-kube prepare`, must not write more.
const MaxInitPeers = 2048
