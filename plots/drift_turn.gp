# Mean KL by turn (left) and by position in powers of two (right).
left_edge = 0.115
middle = left_edge + (position_margin - left_edge - 0.03) / 2
set tmargin at screen 0.86
set bmargin at screen 0.1700
set logscale y
set yrange [turn_lo:turn_hi]
set format y '10^{%L}'
unset title
set label 1 'run '.run at screen 0.01, screen 0.03 font ',11' textcolor rgb '#555555' noenhanced
set label 2 undrawn at screen 0.99, screen 0.03 right font ',11' textcolor rgb '#555555' noenhanced
set label 3 'Drift by turn and by position: '.workload at screen 0.5, screen 0.94 center font ',17' noenhanced
do for [fmt in 'svg png'] {
    eval 'set term '.(fmt eq 'svg' ? svg : png)
    set output name.'.'.fmt
    set multiplot
    set lmargin at screen left_edge
    set rmargin at screen middle
    set xrange [0.9:turn_x_hi + 0.1]
    set xtics autofreq
    set xtics 1, turn_x_hi > 12 ? ceil(turn_x_hi / 12.0) : 1
    set xlabel 'turn'
    set ylabel 'mean KL, nats (log scale)'
    plot for [i=0:n_turn-1] data using (strcol('panel') eq 'turn' && column('series') == i ? column('x') : 1/0):'kl' with linespoints lw 2 lc rgb colour(i) dt dash(i) pt shape(i) ps 0.9
    unset label 1
    unset label 2
    unset label 3
    do for [i=1:n_position] {
        set label 10 + i position_text[i] at graph 1.075, first position_y[i] left font ',12' textcolor rgb colour(position_series[i]) noenhanced
        set arrow 10 + i from graph 1.004, first position_end[i] to graph 1.065, first position_y[i] nohead lw 1 lc rgb colour(position_series[i])
    }
    set lmargin at screen middle + 0.03
    set rmargin at screen position_margin
    set logscale x 2
    set xrange [*:position_x_hi * 1.1]
    set xtics autofreq
    set xlabel 'position, tokens (log scale)'
    unset ylabel
    set ytics format ''
    plot for [i=0:n_position-1] data using (strcol('panel') eq 'position' && column('series') == i ? column('x') : 1/0):'kl' with linespoints lw 2 lc rgb colour(i) dt dash(i) pt shape(i) ps 0.9
    unset multiplot
    unset output
    unset logscale x
    set ytics format '10^{%L}'
    do for [i=1:n_position] {
        unset label 10 + i
        unset arrow 10 + i
    }
    set label 1 'run '.run at screen 0.01, screen 0.03 font ',11' textcolor rgb '#555555' noenhanced
    set label 2 undrawn at screen 0.99, screen 0.03 right font ',11' textcolor rgb '#555555' noenhanced
    set label 3 'Drift by turn and by position: '.workload at screen 0.5, screen 0.94 center font ',17' noenhanced
}
