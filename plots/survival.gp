# Share of replies that still equal the baseline's after so many steps.
set lmargin at screen 0.105
set rmargin at screen steps_margin
set tmargin at screen 0.90
set bmargin at screen 0.1333
set xrange [0:steps_x_hi]
set yrange [0:103]
set ytics 0, 20, 100
set title 'Replies not yet diverged: '.workload
set xlabel 'steps of the reply'
set ylabel '% of replies equal to the baseline so far'
set label 1 'run '.run at screen 0.01, screen 0.03 font ',11' textcolor rgb '#555555' noenhanced
do for [i=1:n_steps] {
    set label 10 + i steps_text[i] at graph 1.04, first steps_y[i] left font ',12' textcolor rgb colour(steps_series[i]) noenhanced
    set arrow 10 + i from graph 1.004, first steps_end[i] to graph 1.034, first steps_y[i] nohead lw 1 lc rgb colour(steps_series[i])
}
do for [fmt in 'svg png'] {
    eval 'set term '.(fmt eq 'svg' ? svg : png)
    set output name.'.'.fmt
    plot for [i=0:n_steps-1] data using (column('series') == i ? column('steps') : 1/0):'percent' with steps lw 2.5 lc rgb colour(i) dt dash(i)
    unset output
}
