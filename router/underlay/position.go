package underlay

// position is a position in a batch: the bytes of the element elem from it on are not sent yet. It is a plain value.
type position struct {
	elem  int
	piece int // 0 is Buf, n is More[n-1]
	at    int // bytes of the piece before the position
	size  int // bytes of a datagram; the last one may be shorter
	left  int // bytes of the element behind the position
}

// start returns the position of the first byte of batch[elem].
func start(batch []Datagram, elem int) position {
	d := &batch[elem]
	total := len(d.Buf)
	for _, piece := range d.More {
		total += len(piece)
	}
	size := d.SegmentSize
	if size <= 0 || size > total {
		size = total
	}
	return position{elem: elem, size: size, left: total}
}

// next returns the length of the next datagram.
func (p *position) next() int { return min(p.size, p.left) }

// take returns up to n contiguous bytes and moves behind them. There must be some left.
func (p *position) take(batch []Datagram, n int) []byte {
	d := &batch[p.elem]
	for {
		piece := d.Buf
		if p.piece > 0 {
			piece = d.More[p.piece-1]
		}
		if p.at == len(piece) {
			p.piece, p.at = p.piece+1, 0
			continue
		}
		piece = piece[p.at:min(len(piece), p.at+n)]
		p.at += len(piece)
		p.left -= len(piece)
		return piece
	}
}
